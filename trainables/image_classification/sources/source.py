from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Source:
    """A number of images with their classes. A row is an index into ``names`` and ``targets``."""

    data: str
    """The setting that names it."""
    names: list[str]
    labels: list[str]
    targets: NDArray[np.int64]
    """The class of each image, an index into ``labels``."""
    validation: NDArray[np.bool_] | None
    """Which images are for validation; None: that is still to be decided."""
    test: NDArray[np.bool_]
    """Which images are for neither training nor validation, but for the test of what came out."""
    content: str
    """A digest that changes whenever an image does."""
    read: Callable[[int, int], Image.Image]
    """Decodes a row to RGB, for a square of the second argument's side; see ``read_image``.

    ValueError: it is no image. OSError: it cannot be read. It can be pickled.
    """

    def check(self, rows: NDArray[np.int64]) -> None:
        """Refuse to train on some classes and validate on others, or on nothing.

        Raises:
            ValueError: among ``rows`` a class or a half is missing.

        """
        if len(self.labels) < 2:
            raise ValueError(
                f"data is {self.data!r}, which has one class only ({self.labels[0]}): give images "
                f"of at least two"
            )
        split = self.validation is None
        rows = rows[~self.test[rows]]
        training = rows if self.validation is None else rows[~self.validation[rows]]
        counts = np.bincount(self.targets[training], minlength=len(self.labels)).tolist()
        least = 2 if split else 1
        few = [f"{name} ({n})" for name, n in zip(self.labels, counts, strict=True) if n < least]
        if few and split:
            raise ValueError(
                f"data is {self.data!r}, which has too few images of {some(few)} to split: give at "
                f"least 2 of each class, or name those for training and for validation"
            )
        if few:
            raise ValueError(
                f"data is {self.data!r}, which has no training images of {some(few)}: add some, or "
                f"take that class out"
            )
        if not split and len(training) == len(rows):
            raise ValueError(
                f"data is {self.data!r}, which has no validation images: add some of each class"
            )


def some(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
