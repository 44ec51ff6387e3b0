"""Independent draws from the space."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace

from search_spaces import sample


def seed_of(seed: int, number: int) -> int:
    """A seed for draw ``number`` that has nothing in common with its neighbours'."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)[0])


class RandomSampler:
    """Draw ``number`` is the same in every run with the same seed, whatever ran in between."""

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        self.space, self.seed = space, seed
        self.told: Counter[int] = Counter()

    def propose(self, number: int) -> tuple[dict[str, Any], str]:
        """A draw that depends on nothing but the seed and the number."""
        return sample(self.space, seed_of(self.seed, number)), "random"

    def tell(self, config: Mapping[str, Any], budget: int, loss: float) -> None:  # noqa: ARG002
        """Count it; a random search learns nothing."""
        self.told[budget] += 1
