"""The whole grid, in its order."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ConfigSpace import ConfigurationSpace

from search_spaces import grid


class GridSampler:
    """Every point of the space's grid once."""

    def __init__(self, space: ConfigurationSpace) -> None:
        self.points = grid(space)
        self.told: Counter[int] = Counter()

    def propose(self, number: int) -> tuple[dict[str, Any], str]:
        """Point ``number`` of the grid."""
        return dict(self.points[number]), "grid"

    def started(self, config: Mapping[str, Any]) -> None:
        """Nothing to note."""

    def tell(self, config: Mapping[str, Any], budget: int, loss: float) -> None:  # noqa: ARG002
        """Count it; a grid learns nothing."""
        self.told[budget] += 1

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Nothing to learn."""
