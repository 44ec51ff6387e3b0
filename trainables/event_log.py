"""What rank 0 of a trial logs for TensorBoard, and how much of the trial's time that may take."""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FIRST_GUESS = 0.05
"""Seconds that a kind is taken to cost until it was logged twice: the first time it also pays for
imports and caches, and says little."""
EPOCH_SECONDS = "logging/epoch_seconds"
LOGGING_SECONDS = "logging/seconds"
LOGGING_SHARE = "logging/share"
LOGGING_METRICS = frozenset({EPOCH_SECONDS, LOGGING_SECONDS, LOGGING_SHARE})
"""What :meth:`EventLog.metrics` reports."""


@dataclass(frozen=True)
class Cost:
    """What a kind of event has cost in this process, in seconds."""

    spent: float = 0.0
    """In all."""
    expected: float = FIRST_GUESS
    """The next time."""


@dataclass
class Account:
    """What logging may still cost in a process, over all of its trials, and what it has cost.

    A costly first time (a network's graph is traced, say) makes debts, which later ones pay.
    """

    balance: float = 0.0
    """Seconds to spend."""
    waiting: set[str] = field(default_factory=set)
    """Kinds that were not due when they could last have been logged."""
    _spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _last_two: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque([FIRST_GUESS], maxlen=2))
    )

    @property
    def costs(self) -> dict[str, Cost]:
        """By kind, of those that were logged. The lesser of the last two is expected."""
        return {kind: Cost(self._spent[kind], min(self._last_two[kind])) for kind in self._spent}

    def charge(self, kind: str, seconds: float) -> None:
        """Pay for what was logged."""
        self.balance -= seconds
        self._spent[kind] += seconds
        self._last_two[kind].append(seconds)

    def start_trial(self) -> None:
        """Keep no more of what is left than the dearest kind costs: a trial pays for its own."""
        costs = [cost.expected for cost in self.costs.values()]
        self.balance = min(self.balance, max(costs, default=FIRST_GUESS))


def is_due(
    kind: str, balance: float, costs: Mapping[str, Cost], waiting: Collection[str] = ()
) -> bool:
    """Whether ``balance`` pays for ``kind``, and for all that waits and goes before it.

    What has taken the least time, with the time that it takes now, goes first: what is cheap is
    logged often, and what is dear has its turn once as much was spent on the others.
    """

    def cost(of: str) -> Cost:
        return costs.get(of, Cost())

    def turn(of: str) -> float:
        return cost(of).spent + cost(of).expected

    before = [other for other in waiting if other != kind and turn(other) < turn(kind)]
    return sum(cost(other).expected for other in [kind, *before]) <= balance


class EventLog:
    """The event file of a trial's rank 0, and when each kind of event is due.

    Args:
        folder: the file's.
        skip: kinds that are left out.
        max_share: the most of the time that logging takes, over the trials of ``account``; 1: all
            is due always, 0: nothing is.
        account: of the process, kept from trial to trial.
        clock: in seconds.

    """

    def __init__(
        self,
        folder: Path,
        skip: Collection[str] = (),
        max_share: float = 1.0,
        account: Account | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder, self.skip, self.max_share = folder, frozenset(skip), max_share
        self._account = account or Account()
        self._account.start_trial()
        self._clock = clock
        self._started = self._earned_until = self._reported = clock()
        self._spent = self._spent_before = 0.0
        self._epoch = 0
        self._due: dict[str, bool] = {}
        """Whether what was asked for since it was last logged in this epoch is due."""

    @cached_property
    def writer(self) -> Any:
        """A ``tensorboardX.SummaryWriter``; its file is begun on first use."""
        from trainables.event_file import EventWriter

        # the name has only the second it was opened in
        return EventWriter(self.folder, f".rank0.epoch{self._epoch}")

    def start_epoch(self, epoch: int) -> None:
        """Decide anew what is due."""
        self._epoch = epoch
        self._due.clear()

    def wants(self, kind: str) -> bool:
        """Whether :meth:`log` would log ``kind`` now; the answer holds until it does.

        Nothing is due once the file could not be written.
        """
        if "writer" in self.__dict__ and self.writer.failed:
            return False
        if kind not in self._due:
            self._due[kind] = self._decide(kind)
        return self._due[kind]

    def log(self, kind: str, write: Callable[[Any], None]) -> None:
        """Call ``write(writer)`` if ``kind`` is due. What it raises is a warning."""
        if not self.wants(kind):
            return
        del self._due[kind]
        started = self._clock()
        try:
            write(self.writer)
        except Exception:  # of what is only looked at, no trial may fail
            logger.warning("%s could not be logged", kind, exc_info=True)
        seconds = self._clock() - started
        self._spent += seconds
        self._account.charge(kind, seconds)

    def metrics(self) -> dict[str, float]:
        """Figures of the time since they were last asked for, once an epoch.

        ``logging/epoch_seconds``: its length, of the first epoch with what came before it;
        ``logging/seconds``: what of that was spent on logging; ``logging/share``: its share of the
        trial's time in this process so far.
        """
        now = self._clock()
        found = {
            EPOCH_SECONDS: now - self._reported,
            LOGGING_SECONDS: self._spent - self._spent_before,
            LOGGING_SHARE: self._spent / max(now - self._started, 1e-9),
        }
        self._reported, self._spent_before = now, self._spent
        return found

    def close(self) -> None:
        """Close the file, where there is one. If it cannot be closed, that is a warning."""
        writer = self.__dict__.pop("writer", None)
        if writer is None:
            return
        try:
            writer.close()
        except Exception:  # its trial is over, and must not fail the next one
            logger.warning("the event file in %s could not be closed", self.folder, exc_info=True)

    def _decide(self, kind: str) -> bool:
        if kind in self.skip or self.max_share == 0:
            return False
        if self.max_share == 1:
            return True
        account = self._account
        now = self._clock()
        account.balance += self.max_share * (now - self._earned_until)
        self._earned_until = now
        costs = account.costs
        promised = sum(costs.get(k, Cost()).expected for k, due in self._due.items() if due)
        due = is_due(kind, account.balance - promised, costs, account.waiting)
        (account.waiting.discard if due else account.waiting.add)(kind)
        return due
