"""HyperBand's brackets (Li et al. 2018, arXiv 1603.06560), as BOHB runs them (arXiv 1807.01774)."""

import math
from dataclasses import dataclass, field

from tuner.search.rules.rungs import rungs
from tuner.search.trial import Status, Trial


@dataclass(eq=False)  # two brackets may be alike, and only the one that has ended is closed
class _Bracket:
    """One run of successive halving: ``sizes[i]`` trials are compared at ``levels[i]`` epochs."""

    levels: list[int]
    sizes: list[int]
    rung: int = 0
    started: int = 0
    arrivals: list[Trial] = field(default_factory=list)
    """Trials that stand at the current rung."""
    promotable: list[Trial] = field(default_factory=list)


class HyperBand:
    """Trials of a bracket wait for each other at each rung; then the best go on, the rest stop.

    Idle slots are filled from the next bracket. The last bracket holds what ``num_trials`` leaves,
    with its rungs shrunk in proportion.
    """

    def __init__(self, max_epochs: int, reduction_factor: int, num_trials: int) -> None:
        self.eta, self.num_trials = reduction_factor, num_trials
        self.levels = rungs(max_epochs, reduction_factor)
        self._brackets: list[_Bracket] = []
        self._open: list[_Bracket] = []
        self._total_started = 0
        self._dropped: list[Trial] = []

    def opening(self) -> tuple[int, int]:
        """The first bracket with room, or the next one to be opened."""
        last = self._brackets[-1] if self._brackets else None
        if last and last.started < last.sizes[0]:
            return len(self._brackets) - 1, last.levels[0]
        return len(self._brackets), self._plan(len(self._brackets)).levels[0]

    def started(self, trial: Trial) -> None:
        """Count the trial into its bracket."""
        if trial.bracket == len(self._brackets):
            self._brackets.append(self._plan(trial.bracket))
            self._open.append(self._brackets[-1])
        self._brackets[trial.bracket].started += 1
        self._total_started += 1

    def arrived(self, trial: Trial) -> None:
        """Note the arrival; the last one of a rung decides who goes on from it."""
        bracket = self._brackets[trial.bracket]
        bracket.arrivals.append(trial)
        if len(bracket.arrivals) == bracket.sizes[bracket.rung]:
            self._halve(bracket)

    def promotion(self) -> tuple[Trial, int] | None:
        """The best trial that waits to go on, from the oldest bracket."""
        for bracket in self._open:
            for trial in bracket.promotable:
                return trial, bracket.levels[bracket.rung]
        return None

    def promoted(self, trial: Trial) -> None:
        """The trial waits no more."""
        bracket = self._brackets[trial.bracket]
        if trial in bracket.promotable:  # not so where the search sent it to max_epochs by itself
            bracket.promotable.remove(trial)

    def lost(self, trial: Trial) -> None:
        """Nobody waits for the trial at the next rung; at its own it has been counted."""
        bracket = self._brackets[trial.bracket]
        if trial not in bracket.promotable:
            return
        bracket.promotable.remove(trial)
        bracket.sizes[bracket.rung] -= 1
        if len(bracket.arrivals) == bracket.sizes[bracket.rung]:
            self._halve(bracket)

    def dropped(self) -> list[Trial]:
        """Who was not promoted, since this was last asked."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def _halve(self, bracket: _Bracket) -> None:
        ranking = sorted(bracket.arrivals, key=lambda t: (t.loss, t.number))
        waiting = [t for t in ranking if t.status is Status.PAUSED and math.isfinite(t.loss)]
        bracket.arrivals = []
        bracket.rung += 1
        size = bracket.sizes[bracket.rung] if bracket.rung < len(bracket.sizes) else 0
        bracket.promotable = waiting[:size]
        self._dropped += waiting[size:]
        if not bracket.promotable:
            self._open.remove(bracket)
            return
        bracket.sizes[bracket.rung] = len(bracket.promotable)

    def _plan(self, index: int) -> _Bracket:
        """Levels and sizes of bracket ``index``; hpbandster's numbers, on rungs that end right."""
        count = len(self.levels)
        s = count - 1 - index % count
        size = count // (s + 1) * self.eta**s
        size = min(size, self.num_trials - self._total_started)
        sizes = [max(size // self.eta**rung, 1) for rung in range(s + 1)]
        return _Bracket(self.levels[count - 1 - s :], sizes)
