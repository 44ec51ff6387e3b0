"""No configurations at all, where only who goes on matters."""

from collections import Counter
from collections.abc import Mapping
from typing import Any


class BlankSampler:
    """Does nothing: a replayed search has its configurations in its events, a plan needs none."""

    def __init__(self) -> None:
        self.told: Counter[int] = Counter()

    def propose(self, number: int) -> tuple[dict[str, Any], str]:
        """The trial's number, for want of anything else."""
        return {"trial": number}, "nobody"

    def started(self, config: Mapping[str, Any]) -> None:
        """Nothing to note."""

    def tell(self, config: Mapping[str, Any], budget: int, loss: float) -> None:  # noqa: ARG002
        """Count it."""
        self.told[budget] += 1

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Nothing to learn."""
