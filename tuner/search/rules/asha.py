"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), pausing and promoting."""

import math
from bisect import bisect_left, insort
from heapq import heappop, heappush
from itertools import pairwise

from tuner.search.rules.rungs import rungs
from tuner.search.trial import Status, Trial


class Asha:
    """A trial pauses at each rung and is promoted once it is in the top 1/eta of those seen there.

    Nothing waits: a slot takes the highest promotion that is due, else a new trial.
    """

    def __init__(self, max_epochs: int, reduction_factor: int) -> None:
        self.eta = reduction_factor
        self.levels = rungs(max_epochs, reduction_factor)
        self._rungs = [_Rung(epochs) for epochs in self.levels]
        self._next = {low.epochs: high.epochs for low, high in pairwise(self._rungs)}
        self._at = {rung.epochs: rung for rung in self._rungs}

    def opening(self) -> tuple[int, int]:
        """Every trial starts for the lowest rung."""
        return 0, self._rungs[0].epochs

    def started(self, trial: Trial) -> None:
        """Nothing to note before it arrives."""

    def arrived(self, trial: Trial) -> None:
        """Rank the trial at its rung; a failed one counts there, as the worst."""
        self._at[trial.target].add(trial)

    def promotion(self) -> tuple[Trial, int] | None:
        """The best paused trial within the top 1/eta of its rung, from the highest rung down."""
        for rung in reversed(self._rungs[:-1]):
            if trial := rung.promotable(self.eta):
                return trial, self._next[rung.epochs]
        return None

    def promoted(self, trial: Trial) -> None:
        """Nothing to note: the trial is no longer paused, and its rung sees that."""

    def lost(self, trial: Trial) -> None:
        """Nothing to note: it is no longer paused, and keeps its rank, as one that stays behind."""

    def dropped(self) -> list[Trial]:
        """Nobody: a better rank may come with later arrivals."""
        return []


class _Rung:
    """Everything that arrived at one rung. Arrivals cost O(log n) comparisons, asking O(log n)."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._ranking: list[tuple[float, int]] = []
        self._waiting: list[tuple[float, int, Trial]] = []

    def add(self, trial: Trial) -> None:
        insort(self._ranking, (trial.loss, trial.number))
        if trial.status is Status.PAUSED and math.isfinite(trial.loss):
            heappush(self._waiting, (trial.loss, trial.number, trial))

    def promotable(self, eta: int) -> Trial | None:
        while self._waiting and not self._waits(self._waiting[0][2]):
            heappop(self._waiting)
        if not self._waiting:
            return None
        loss, number, trial = self._waiting[0]
        rank = bisect_left(self._ranking, (loss, number))
        return trial if rank < len(self._ranking) // eta else None

    def _waits(self, trial: Trial) -> bool:
        return trial.status is Status.PAUSED and trial.target == self.epochs
