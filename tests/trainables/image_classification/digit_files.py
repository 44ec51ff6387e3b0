"""Real images in real files: scikit-learn's scans of digits, as PNGs."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path, classes: Iterable[int] = (0, 1), count: int = 6) -> Path:
    """Write the first ``count`` scans of each class into a sub-folder named after it."""
    digits = load_digits()
    for digit in classes:
        (folder / str(digit)).mkdir(parents=True)
        for i, pixels in enumerate(digits.images[digits.target == digit][:count]):
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(
                folder / str(digit) / f"{i}.png"
            )
    return folder
