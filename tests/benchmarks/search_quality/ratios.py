"""Regrets as ratios to another search's, over tasks and paired seeds, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FLOOR = 0.01
"""A search counts as at most a hundred times better on a task: a median of 0 has no logarithm."""
RESAMPLES = 2000
LOW, HIGH = 5, 95


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 90 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(regrets: Array, of: Array, floor_of: Array) -> Ratio:
    """The geometric mean over tasks of median regret ÷ that of another search.

    Args:
        regrets: of the search, (tasks, seeds).
        of: of the search it is compared with, (tasks, seeds); seeds are paired.
        floor_of: of random search; medians count as at least ``FLOOR`` of its median.

    Seeds are resampled, in pairs, a task at a time; tasks are not.

    """
    random = np.random.default_rng(0)
    floors = FLOOR * np.median(floor_of, axis=1)
    picks = random.integers(0, regrets.shape[1], (RESAMPLES, *regrets.shape))
    point = _geometric_mean(np.median(regrets, axis=1), np.median(of, axis=1), floors)
    above = np.median(np.take_along_axis(regrets[None], picks, axis=2), axis=2)
    below = np.median(np.take_along_axis(of[None], picks, axis=2), axis=2)
    low, high = np.percentile(_geometric_mean(above, below, floors), [LOW, HIGH])
    return Ratio(float(point), float(low), float(high))


def _geometric_mean(above: Array, below: Array, floors: Array) -> Array:
    logarithms = np.log(np.maximum(above, floors)) - np.log(np.maximum(below, floors))
    return np.asarray(np.exp(logarithms.mean(axis=-1)))
