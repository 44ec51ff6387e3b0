"""Failures that are alike, told once."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tuner.search.trial import Status, Trial

_VARYING = re.compile(r"0x[0-9a-fA-F]+|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
"""What differs from one message to the next of the same cause: numbers and addresses."""


@dataclass(frozen=True)
class FailureGroup:
    """Trials that failed with the same type of error and, but for its numbers, the same message."""

    type: str
    pattern: str
    """The message's first line, each number as #."""
    trials: list[Trial] = field(default_factory=list)

    @property
    def traceback(self) -> str | None:
        """The first one there is."""
        found = (trial.error.get("traceback") for trial in self.trials if trial.error)
        return next(filter(None, found), None)


def group_failures(trials: Iterable[Trial]) -> list[FailureGroup]:
    """The failed ones among ``trials``, the most frequent failure first."""
    groups: dict[tuple[str, str], FailureGroup] = {}
    for trial in trials:
        if trial.status is Status.FAILED and trial.error:
            key = str(trial.error["type"]), _pattern(str(trial.error["message"]))
            groups.setdefault(key, FailureGroup(*key)).trials.append(trial)
    return sorted(groups.values(), key=lambda group: -len(group.trials))


def _pattern(message: str) -> str:
    first = next(iter(message.splitlines()), "")
    return _VARYING.sub("#", first)
