"""A search where the output is no terminal: a line a change, as long as those are few."""

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tuner.callbacks.outlook import Outlook, goal
from tuner.search.search import Event, Search
from tuner.search.trial import Status
from tuner.text import brief, describe, duration, figure, plain, roughly

SECONDS_BETWEEN_RESULTS = 5.0
"""Results that end nothing come at most so often, and so do lines that stand for several."""
BURST, SECONDS_BETWEEN_CHANGES = 20, 1.0
"""Starts and ends of trials: so many at once, and on average no more often than this."""


class Lines:
    """Says what changes. Use it as a context, and subscribe it to the search.

    Results are thinned out in time. Where even starts and ends of trials come faster than anybody
    reads, a line every few seconds tells where the search stands, for all that are left out.

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._search, self._outlook, self._clock = write, search, outlook, clock
        self._allowed, self._since = float(BURST), clock()
        self._quiet_until, self._left_out = 0.0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __call__(self, event: Event, search: Search) -> None:
        """Say what changed, unless too much does."""
        self._outlook(event, search)
        line = _line(event, search)
        if not line:
            return
        passing = event["event"] == "result" and event["verdict"] != "complete"
        if not passing:
            if self._may_speak():
                self._write(line)
                return
            self._left_out = True
        if self._clock() >= self._quiet_until:
            self._quiet_until = self._clock() + SECONDS_BETWEEN_RESULTS
            self._write(standing(search, self._outlook) if self._left_out else line)
            self._left_out = False

    def _may_speak(self) -> bool:
        """Whether one more start or end can be said now."""
        now = self._clock()
        earned = (now - self._since) / SECONDS_BETWEEN_CHANGES
        self._allowed, self._since = min(BURST, self._allowed + earned), now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True


def standing(search: Search, outlook: Outlook) -> str:
    """Where the search stands, in a line."""
    counts = Counter(trial.status for trial in search.trials)
    parts = [f"{len(search.trials)}/{search.num_trials} trials"]
    parts += [f"{counts[status]} {status}" for status in Status if counts[status]]
    about = "" if outlook.exact else "about "
    parts += [f"{search.epochs_done} of {about}{outlook.planned} epochs", _best(search)]
    if (left := outlook.seconds_left) is not None:
        parts.append(f"about {roughly(left)} left")
    return " · ".join([*parts, f"{duration(search.elapsed)} so far"])


def _line(event: Event, search: Search) -> str:
    if "trial" not in event:
        return ""
    trial = search.trials[event["trial"]]
    name = "final fit" if trial.origin == "final" else f"trial {trial.number}"
    match event["event"]:
        case "start":
            return f"{name} started, to epoch {goal(trial, search)}: {describe(trial.config)}"
        case "result":
            done = "completed at epoch" if event["verdict"] == "complete" else "epoch"
            value = figure(event["metrics"][search.metric])
            done = f"{name} {done} {event['epoch']}: {search.metric} {value}"
            return done if trial.origin == "final" else f"{done}   [{_best(search)}]"
        case "resume":
            return f"{name} goes on to epoch {trial.target}"
        case "restart":
            return f"{name} is taken up again from epoch {(trial.checkpoint or (0,))[0]}"
        case "interrupt":
            return f"{name} lost its process: {brief(event['error'])}"
        case "replace":
            return f"{name} gets a new process: {plain(event['reason'])}"
        case "fail":
            return f"{name} failed: {brief(event['error'])}"
    return ""


def _best(search: Search) -> str:
    if search.best is None:
        return "nothing yet"
    return f"best {figure(search.value(search.best.best_loss))}, trial {search.best.number}"
