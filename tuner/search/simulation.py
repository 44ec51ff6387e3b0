"""A search under a simulated clock: for plans, tests and benchmarks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from tuner.search import build_rule
from tuner.search.journal import NoJournal
from tuner.search.samplers.blank import BlankSampler
from tuner.search.search import Search
from tuner.search.settings import SearchSettings
from tuner.search.trial import Decision, Trial

Evaluate = Callable[[dict[str, Any], int], float]
"""(configuration, epoch) -> the metric after that epoch; raises where the configuration fails."""


@dataclass(frozen=True)
class Simulated:
    """What a simulated search took."""

    seconds: float
    epochs: int
    decisions: int


def blank_search(settings: SearchSettings, num_trials: int) -> Search:
    """A search by the settings' rule; a trial's configuration is ``{"trial": its number}``."""
    return Search(
        BlankSampler(),
        build_rule(settings, num_trials),
        NoJournal(),
        num_trials=num_trials,
        max_epochs=settings.max_epochs,
        metric="quality",
        mode="max",
        default=None if settings.algorithm == "grid" else {"trial": 0},
    )


def simulate(
    search: Search,
    evaluate: Evaluate,
    *,
    slots: int,
    epoch_seconds: float = 1.0,
    time_budget: float = math.inf,
) -> Simulated:
    """Run ``search`` on ``slots`` slots to its end, or for ``time_budget`` simulated seconds.

    Raises:
        RuntimeError: the search hangs: slots are free, nothing runs, and it is not finished.

    """
    now, epochs, decisions = 0.0, 0, 0
    free = list(range(slots))
    running: list[tuple[float, int, Trial, int]] = []  # end of epoch, order, trial, its slot
    order = 0
    while True:
        if now >= time_budget:
            search.halt(f"{time_budget:g} s are over")
        while free:
            decisions += 1
            trial = search.next_job(free[-1])
            if trial is None:
                break
            order += 1
            heappush(running, (now + epoch_seconds, order, trial, free.pop()))
        if not running:
            break
        now, _, trial, slot = heappop(running)
        epochs, decisions, order = epochs + 1, decisions + 1, order + 1
        if _run_epoch(search, evaluate, trial) is Decision.CONTINUE:
            heappush(running, (now + epoch_seconds, order, trial, slot))
        else:
            search.close(trial.number)
            free.append(slot)
    if not search.finished:
        raise RuntimeError(f"the search hangs with {len(search.active)} trials active")
    search.finish()
    return Simulated(now, epochs, decisions)


def _run_epoch(search: Search, evaluate: Evaluate, trial: Trial) -> Decision:
    epoch = trial.epoch + 1
    try:
        value = evaluate(trial.config, epoch)
    except Exception as error:  # noqa: BLE001 - an outcome, like any other
        search.fail(trial.number, {"type": type(error).__name__, "message": str(error)})
        return Decision.STOP
    return search.report(trial.number, epoch, {search.metric: value})
