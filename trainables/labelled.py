"""Examples with classes, as a data set has them, and how they fall into training and validation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Indices into the examples of a data set."""

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Labelled:
    """A number of examples with their classes. A row is an index into ``targets``."""

    unit: ClassVar[str] = "examples"
    """What they are, in the plural."""
    data: str
    """The setting that names them."""
    labels: list[str]
    targets: Rows
    """The class of each example, an index into ``labels``."""
    validation: NDArray[np.bool_] | None
    """Which are for validation; None: that is still to be decided."""
    test: NDArray[np.bool_]
    """Which are for neither training nor validation, but for the test of what came out."""
    content: str
    """A digest that changes whenever an example does."""

    def check(self, rows: Rows) -> None:
        """Refuse to train on some classes and validate on others, or on nothing.

        Raises:
            ValueError: among ``rows`` a class or a half is missing.

        """
        if len(self.labels) < 2:
            raise ValueError(
                f"data is {self.data!r}, which has one class only ({self.labels[0]}): give "
                f"{self.unit} of at least two"
            )
        split = self.validation is None
        rows = rows[~self.test[rows]]
        training = rows if self.validation is None else rows[~self.validation[rows]]
        counts = np.bincount(self.targets[training], minlength=len(self.labels)).tolist()
        least = 2 if split else 1
        few = [f"{name} ({n})" for name, n in zip(self.labels, counts, strict=True) if n < least]
        if few and split:
            raise ValueError(
                f"data is {self.data!r}, which has too few {self.unit} of {some(few)} to split: "
                f"give at least 2 of each class, or name those for training and for validation"
            )
        if few:
            raise ValueError(
                f"data is {self.data!r}, which has no training {self.unit} of {some(few)}: add "
                f"some, or take that class out"
            )
        if not split and len(training) == len(rows):
            raise ValueError(
                f"data is {self.data!r}, which has no validation {self.unit}: add some of each "
                f"class"
            )

    def split(self, rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """Those of ``rows`` for training and for validation, as the data say.

        Where they do not say: of every class the same ``fraction``, but at least one, is drawn for
        validation.
        """
        if self.validation is not None:
            return rows[~self.validation[rows]], rows[self.validation[rows]]
        train, val = [], []
        for own in shuffled_classes(rows, self.targets, seed):
            held_out = min(max(round(fraction * len(own)), 1), len(own) - 1)
            val.append(own[:held_out])
            train.append(own[held_out:])
        return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def shuffled_classes(rows: Rows, targets: Rows, seed: int) -> list[Rows]:
    """The rows of each class that occurs, shuffled."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(rows[targets[rows] == target]) for target in np.unique(targets[rows])]


def some(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
