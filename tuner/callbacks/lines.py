"""A search where the output is no terminal: a line a change, as long as those are few."""

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from tuner.callbacks.observer import Observer
from tuner.callbacks.outlook import Outlook, goal
from tuner.search.search import Event, Search
from tuner.search.trial import Status, Trial
from tuner.text import brief, describe, duration, figure, plain, roughly

Clock = Callable[[], float]

CHANGES, SECONDS_BETWEEN_CHANGES = 5, 2.0
"""Starts, results and ends: so many lines at once, and on average no more often than this."""
FAULTS, SECONDS_BETWEEN_FAULTS = 20, 10.0
"""The same for what goes wrong with a trial, which is said on its own account."""
SECONDS_BETWEEN_SUMS = 5.0
"""Lines that stand for what was held back come at most so often."""
_LOST = {"interrupt": "its process", "damaged": "a checkpoint"}
_FAULTS = ("fail", "interrupt", "damaged", "replace")
_DONE = {"complete": "completed at", "stop": "stopped at", "pause": "paused at"}


class Lines(Observer):
    """Says what changes, but not that a paused trial is given up: that is in the summary.

    Where changes come faster than anybody reads, a line every few seconds tells where the search
    stands, for all that are held back.

    Args:
        write: prints a line.
        search: the search.
        outlook: how far it has to go.
        clock: seconds.

    """

    def __init__(
        self,
        write: Callable[[str], None],
        search: Search,
        outlook: Outlook,
        clock: Clock = time.monotonic,
    ) -> None:
        self._write, self._search, self._outlook, self._clock = write, search, outlook, clock
        self._changes = _Allowance(CHANGES, SECONDS_BETWEEN_CHANGES, clock)
        self._faults = _Allowance(FAULTS, SECONDS_BETWEEN_FAULTS, clock)
        self._quiet_until, self._held_back = clock(), False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say where the search stands, if the last lines do not."""
        if self._held_back:
            self._sum_up()

    def __call__(self, event: Event, search: Search) -> None:
        """Say what changed, unless too much does."""
        self._outlook(event, search)
        line = _line(event, search)
        if not line:
            return
        if self._may_be_said(event["event"]):
            self._write(line)
        else:
            self._held_back = True
        if self._held_back and self._clock() >= self._quiet_until:
            self._sum_up()

    def _may_be_said(self, kind: str) -> bool:
        if kind == "halt":
            return True
        return (self._faults if kind in _FAULTS else self._changes).take()

    def _sum_up(self) -> None:
        self._write(standing(self._search, self._outlook))
        self._quiet_until = self._clock() + SECONDS_BETWEEN_SUMS
        self._held_back = False


class _Allowance:
    """Lines that may be said: ``burst`` at once, and on average one in so many ``seconds``.

    What is refused uses up what was saved since, so that there is silence before the next one: a
    flood is told in sums alone, and not in single lines, picked by chance, between them.
    """

    def __init__(self, burst: int, seconds: float, clock: Clock) -> None:
        self._burst, self._seconds, self._clock = burst, seconds, clock
        self._left, self._since = float(burst), clock()

    def take(self) -> bool:
        """Whether one more may be said now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._since) / self._seconds)
        self._since = now
        granted = self._left >= 1
        self._left = self._left - 1 if granted else 0.0
        return granted


def standing(search: Search, outlook: Outlook) -> str:
    """Where the search stands, in a line."""
    counts = Counter(trial.status for trial in search.trials)
    parts = [f"{len(search.trials)}/{search.num_trials} trials"]
    parts += [f"{counts[status]} {status}" for status in Status if counts[status]]
    about = "" if outlook.exact else "about "
    parts += [f"{search.epochs_done} of {about}{outlook.planned} epochs", _best(search)]
    if left := outlook.seconds_left:
        parts.append(f"about {roughly(left)} left")
    return " · ".join([*parts, f"{duration(search.elapsed)} so far"])


def _line(event: Event, search: Search) -> str:
    if event["event"] == "halt":
        return f"no more is started: {plain(event['reason'])}"
    return _of_trial(event, search.trials[event["trial"]], search) if "trial" in event else ""


def _of_trial(event: Event, trial: Trial, search: Search) -> str:
    name = "final fit" if trial.origin == "final" else f"trial {trial.number}"
    match event["event"]:
        case "start":
            return f"{name} started, to epoch {goal(trial, search)}: {describe(trial.config)}"
        case "result":
            where = f"{_DONE.get(event['verdict'], '')} epoch {event['epoch']}".strip()
            value = figure(event["metrics"][search.metric])
            done = f"{name} {where}: {search.metric} {value}"
            return done if trial.origin == "final" else f"{done}   [{_best(search)}]"
        case "complete":
            return f"{name} completed at epoch {trial.epoch}, by its own account"
        case "resume":
            return f"{name} goes on to epoch {trial.target}"
        case "restart":
            return f"{name} is taken up again from epoch {(trial.checkpoint or (0,))[0]}"
        case "interrupt" | "damaged":
            return f"{name} lost {_LOST[event['event']]}: {brief(event['error'])}"
        case "replace":
            return f"{name} gets a new process: {plain(event['reason'])}"
        case "withdraw":
            return f"{name} waits for another slot: {plain(event['reason'])}"
        case "fail":
            return f"{name} failed: {brief(event['error'])}"
    return ""


def _best(search: Search) -> str:
    if search.best is None:
        return "nothing yet"
    return f"best {figure(search.value(search.best.best_loss))}, trial {search.best.number}"
