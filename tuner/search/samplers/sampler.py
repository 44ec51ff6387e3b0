"""What samplers of a space have in common: they count what they hear, and repeat nothing."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
from ConfigSpace import ConfigurationSpace

REDRAWS = 50
"""Draws before a configuration may be there twice: the space is next to exhausted."""


class SpaceSampler(ABC):
    """Draws from ``space``, each draw with a seed of its own, again where it was there before."""

    learns: ClassVar[bool] = True
    """Whether results matter to it."""

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        self.space, self.seed = space, seed
        self.told: Counter[int] = Counter()
        self.swallowed = 0
        """Exceptions that a library has caught and answered with a random draw."""
        self._started: set[Hashable] = set()

    def propose(self, number: int) -> tuple[dict[str, Any], str]:
        """A configuration for trial ``number`` that was not started yet, and its origin."""
        for redraw in range(REDRAWS):
            config, origin = self._pick(seed_of(self.seed, number, redraw))
            if _key(config) not in self._started:
                break
        return config, origin

    def started(self, config: Mapping[str, Any]) -> None:
        """Hear that ``config`` is tried, and need not be proposed again."""
        self._started.add(_key(config))

    def tell(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Hear what ``config`` reached after ``budget`` epochs; ``inf`` where it failed."""
        self.told[budget] += 1
        self.learn(config, budget, loss)

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:  # noqa: B027
        """Draw a lesson, from an earlier run's result too; none, where draws are independent."""

    @abstractmethod
    def _pick(self, seed: int) -> tuple[dict[str, Any], str]:
        """A configuration that depends on ``seed`` and on what was heard, and its origin."""


def seed_of(*parts: int) -> int:
    """A seed that has nothing in common with those of neighbouring ``parts``."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


def _key(config: Mapping[str, Any]) -> Hashable:
    return frozenset((name, type(value), value) for name, value in config.items())
