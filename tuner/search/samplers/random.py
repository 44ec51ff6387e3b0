"""Independent draws from the space."""

from typing import Any

from search_spaces import sample
from tuner.search.samplers.sampler import SpaceSampler


class RandomSampler(SpaceSampler):
    """Draw ``number`` is the same in every run with the same seed, whatever ran in between."""

    learns = False

    def _pick(self, seed: int) -> tuple[dict[str, Any], str]:
        return sample(self.space, seed), "random"
