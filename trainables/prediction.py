from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one input."""

    input: str
    """What was classified: a path, say."""
    label: str
    probability: float
