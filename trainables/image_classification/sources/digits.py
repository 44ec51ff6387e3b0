import hashlib
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.image_classification.decoding import to_rgb
from trainables.image_classification.sources.source import Source

DIGITS = "digits"
_TRAINING = 1400


def open_digits() -> Source:
    """1,400 for training and 397 for validation, the same share of each class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    count = len(digits.target)
    _, held_out = train_test_split(
        np.arange(count), train_size=_TRAINING, stratify=digits.target, random_state=0
    )
    pixels = (digits.images * (255 / 16)).astype(np.uint8)
    return Source(
        data=DIGITS,
        names=[f"{DIGITS}[{row}]" for row in range(count)],
        labels=[str(digit) for digit in range(10)],
        targets=digits.target.astype(np.int64),
        validation=np.isin(np.arange(count), held_out),
        test=np.zeros(count, dtype=np.bool_),
        content=hashlib.sha256(pixels.tobytes()).hexdigest(),
        read=partial(_read, pixels),
    )


def _read(pixels: NDArray[np.uint8], row: int, _size: int) -> Image.Image:
    return to_rgb(Image.fromarray(pixels[row]))
