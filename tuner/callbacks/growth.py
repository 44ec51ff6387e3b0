"""Memory that a trial holds more of with each epoch, as reported by its ranks."""

from collections.abc import Callable, Iterable, Mapping

from tuner.callbacks.observer import Observer
from tuner.search.search import Event, Search
from tuner.search.trial import Trial

KINDS = (("tensor_growth", "tensors"), ("memory_growth_mb", "MB of memory"))
"""Metrics, and what they count; the more telling one first."""
QUESTION = "does the Task keep losses or outputs as tensors, with their graph?"


class GrowthWarnings(Observer):
    """Warns of the first trial whose memory grows; the summary tells of the others."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn, self._warned = warn, False

    def __call__(self, event: Event, search: Search) -> None:
        """Look at a result."""
        del search
        if self._warned or event["event"] != "result":
            return
        if more := growth([event["metrics"]]):
            self._warned = True
            self._warn(f"trial {event['trial']} holds {more}, more with each epoch: {QUESTION}")


def growth(results: Iterable[Mapping[str, float]]) -> str | None:
    """What was held more of after some of these epochs, at the most; None: of nothing."""
    results = list(results)
    for name, what in KINDS:
        if grown := max((metrics.get(name, 0) for metrics in results), default=0):
            return f"{grown:.0f} more {what}"
    return None


def describe_growth(trials: Iterable[Trial]) -> str | None:
    """How many trials held more with each epoch, and what the first did; None: none."""
    found = {t.number: more for t in trials if (more := growth(t.results.values()))}
    if not found:
        return None
    number, more = next(iter(found.items()))
    if len(found) == 1:
        return f"trial {number} held {more}, more with each epoch: {QUESTION}"
    first = f"the first (trial {number}) {more}"
    return f"{len(found)} trials held more memory with each epoch, {first}: {QUESTION}"
