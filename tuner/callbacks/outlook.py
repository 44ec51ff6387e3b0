"""What is still to come of a search: epochs, the pace of it, and the time that is left."""

import time
from collections import deque
from collections.abc import Callable
from random import Random
from statistics import mean

from tuner.search.search import Event, Search
from tuner.search.settings import SearchSettings
from tuner.search.simulation import blank_search, simulate
from tuner.search.trial import Status, Trial

SIMULATIONS = 20
SIMULATED_TRIALS = 1000
"""Of all simulations together, as far as one has not more: so that they take about 0.3 s."""
WINDOW = 100
"""Results, and trials, that the pace is taken over."""
SETTLED_SECONDS = 5.0
"""Before, there is no pace yet: the first results of all slots come at once."""


class Outlook:
    """Hears of every event and says how far the search has to go.

    Args:
        search: the search.
        settings: what it was built from.
        slots: how many trials run at once.
        time_budget: seconds of all sessions, after which the search ends.
        clock: seconds, for the pace.

    """

    def __init__(
        self,
        search: Search,
        settings: SearchSettings,
        slots: int,
        time_budget: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._search, self._budget = search, time_budget
        self.exact = len(search.rule.levels) == 1
        """The planned epochs are known, for every trial runs to its end."""
        self._to_come = [] if self.exact else epochs_to_come(settings, search.num_trials, slots)
        self._expected = 0.0
        self._epochs, self._trials = _Pace(clock), _Pace(clock)
        self._expect()

    def __call__(self, event: Event, search: Search) -> None:
        """Count results and trials that have left their slot for the first time."""
        if event["event"] == "start":
            self._expect()
        if event["event"] == "result":
            self._epochs.count()
        left = event["event"] in ("complete", "fail") or event.get("verdict") in _LEAVES
        if left and search.trials[event["trial"]].attempts == 1:
            self._trials.count()

    @property
    def planned(self) -> int:
        """Epochs done and to come: at least what is under way has to run."""
        search = self._search
        if search.halted:
            return search.epochs_done + len(search.active)
        sure = sum(max(0, goal(trial, search) - trial.epoch) for trial in search.active)
        if self.exact:
            sure += (search.num_trials - len(search.trials)) * search.max_epochs
        return max(round(self._expected), search.epochs_done + sure)

    @property
    def epochs_per_minute(self) -> float | None:
        """Over the latest results; None until that can be said."""
        return self._epochs.per_minute(self._longest_epoch())

    @property
    def trials_per_minute(self) -> float | None:
        """How many came to their first pause, or their end; None until that can be said."""
        return self._trials.per_minute(self._longest_epoch())

    @property
    def seconds_left(self) -> float | None:
        """Until the search ends; None until that can be said.

        At the end fewer slots are busy, so it is at least what the longest trial under way takes.
        """
        search, pace = self._search, self.epochs_per_minute
        if not pace:
            return None
        left = [60 * max(0, self.planned - search.epochs_done) / pace]
        if not search.halted:
            left += [(goal(t, search) - t.epoch) * _epoch_seconds(t) for t in search.active]
        if self._budget is None:
            return max(left)
        return min(max(left), max(0.0, self._budget - search.elapsed))

    def _expect(self) -> None:
        if not self.exact and len(self._search.trials) < len(self._to_come):
            self._expected = self._search.epochs_done + self._to_come[len(self._search.trials)]

    def _longest_epoch(self) -> float:
        return max(map(_epoch_seconds, self._search.active), default=0.0)


def goal(trial: Trial, search: Search) -> int:
    """The epoch at which the trial's slot is free again, or that it runs to for sure."""
    return search.max_epochs if trial.is_baseline else trial.target


def epochs_to_come(settings: SearchSettings, num_trials: int, slots: int) -> list[float]:
    """Epochs that are to come in all, then after the start of each trial.

    The mean over simulated searches, by the search's own rule, of trials of random quality.
    """
    random = Random(settings.seed)
    runs = max(1, min(SIMULATIONS, SIMULATED_TRIALS // num_trials))
    courses = [_simulate(settings, num_trials, slots, random) for _ in range(runs)]
    return [mean(column) for column in zip(*courses, strict=True)]


def _simulate(settings: SearchSettings, num_trials: int, slots: int, random: Random) -> list[int]:
    quality = [random.random() for _ in range(num_trials)]
    search, done = blank_search(settings, num_trials), [0]

    def note(event: Event, search: Search) -> None:
        if event["event"] == "start":
            done.append(search.epochs_done)

    search.subscribe(note)
    simulate(search, lambda config, _: quality[config["trial"]], slots=slots)
    return [search.epochs_done - epochs for epochs in done]


_LEAVES = ("pause", "complete", "stop")
"""Verdicts that free the trial's slot."""


def _epoch_seconds(trial: Trial) -> float:
    """What the trial's latest epoch took; 0: it has had none in this attempt, or says nothing."""
    if trial.status is not Status.RUNNING:
        return 0.0
    return trial.results.get(trial.epoch, {}).get("seconds", 0.0)


class _Pace:
    """How often something happens."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=WINDOW)

    def count(self) -> None:
        self._times.append(self._clock())

    def per_minute(self, longest: float) -> float | None:
        """None: it has been watched for less than ``longest``, what one of them may take."""
        times = list(self._times)
        passed = self._clock() - times[0] if times else 0.0
        if len(times) < 2 or passed < max(SETTLED_SECONDS, longest):
            return None
        return 60 * (len(times) - 1) / passed
