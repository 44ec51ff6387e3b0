"""Where images come from: which there are and of which class, before any is decoded."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from trainables.image_classification.decoding import read_image, to_rgb

_DIGITS = "digits"
_DIGITS_TRAINING = 1400
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
    content: str
    """A digest that changes whenever an image does."""
    read: Callable[[int], Image.Image]
    """Decodes a row to RGB. ValueError: it is no image. OSError: it cannot be read."""

    def check(self, rows: NDArray[np.int64]) -> None:
        """Refuse to train on some classes and validate on others, or on nothing.

        Raises:
            ValueError: among ``rows`` a class or a half is missing.

        """
        split = self.validation is None
        training = rows if self.validation is None else rows[~self.validation[rows]]
        counts = np.bincount(self.targets[training], minlength=len(self.labels)).tolist()
        least = 2 if split else 1
        few = [f"{name} ({n})" for name, n in zip(self.labels, counts, strict=True) if n < least]
        if few and split:
            raise ValueError(
                f"data is {self.data!r}, which has too few images of {some(few)} to split: give at "
                f"least 2 of each class, or train/ and val/"
            )
        if few:
            raise ValueError(
                f"data is {self.data!r}, whose train/ has no images of {some(few)}: add some, or "
                f"take that class out of val/ and train/"
            )
        if not split and len(training) == len(rows):
            raise ValueError(
                f"data is {self.data!r}, whose val/ has no images: add some of each class"
            )


def some(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


@lru_cache(maxsize=4)
def open_source(data: str) -> Source:
    """Find out what ``data`` holds. A process looks once: files added later are not seen.

    Raises:
        ValueError: it is no folder, cannot be read, is empty, or its classes are not sound.

    """
    source = _digits() if data == _DIGITS else _folder(data)
    source.check(np.arange(len(source.names)))
    return source


def _digits() -> Source:
    """1,400 for training and 397 for validation, the same share of each class."""
    digits = load_digits()
    count = len(digits.target)
    _, held_out = train_test_split(
        np.arange(count), train_size=_DIGITS_TRAINING, stratify=digits.target, random_state=0
    )
    pixels = (digits.images * (255 / 16)).astype(np.uint8)
    return Source(
        data=_DIGITS,
        names=[f"{_DIGITS}[{row}]" for row in range(count)],
        labels=[str(digit) for digit in range(10)],
        targets=digits.target.astype(np.int64),
        validation=np.isin(np.arange(count), held_out),
        content=hashlib.sha256(pixels.tobytes()).hexdigest(),
        read=lambda row: to_rgb(Image.fromarray(pixels[row])),
    )


def _folder(data: str) -> Source:
    root = Path(data).expanduser().absolute()
    try:
        splits = _splits(data, root)
        labels = sorted({folder.name for split in splits for folder in _class_folders(split)})
        found = [(path, label, split) for split in splits for path, label in _files(split)]
        stats = [path.stat() for path, _, _ in found]
    except OSError as error:
        raise ValueError(
            f"data is {data!r}, which cannot be read ({error.strerror}: {error.filename}): give a "
            f"folder that this user may read, or {_DIGITS}"
        ) from error
    _check_classes(data, labels, len(found))
    names = [str(path.relative_to(root)) for path, _, _ in found]
    content = hashlib.sha256(str(root).encode())
    for name, stat in zip(names, stats, strict=True):
        content.update(json.dumps([name, stat.st_size, stat.st_mtime_ns]).encode())
    index = {label: i for i, label in enumerate(labels)}
    return Source(
        data=data,
        names=names,
        labels=labels,
        targets=np.array([index[label] for _, label, _ in found]),
        validation=np.array([split == splits[1] for *_, split in found]) if splits[1:] else None,
        content=content.hexdigest(),
        read=lambda row: read_image(found[row][0].read_bytes()),
    )


def _splits(data: str, root: Path) -> list[Path]:
    """Its train/ and val/, or the folder itself. A class may well be called train."""
    if not root.is_dir():
        raise ValueError(
            f"data is {data!r}, but {root} is no folder: give a folder with one sub-folder of "
            f"images a class, or {_DIGITS}"
        )
    train, val = root / "train", root / "val"
    present = [half for half in (train, val) if half.is_dir() and _class_folders(half)]
    if len(present) == 1:
        absent = val if present == [train] else train
        raise ValueError(
            f"data is {data!r}, which has class sub-folders in {present[0].name}/ but none in "
            f"{absent.name}/: give both, or the class sub-folders alone to have them split"
        )
    return present or [root]


def _class_folders(split: Path) -> list[Path]:
    return sorted(p for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(split: Path) -> Iterator[tuple[Path, str]]:
    """All files of the class folders, however deep, with their class; hidden ones left out."""

    def refuse(error: OSError) -> None:  # os.walk passes over what it cannot read
        raise error

    for folder in _class_folders(split):
        for parent, folders, names in os.walk(folder, onerror=refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    yield Path(parent, name), folder.name


def _check_classes(data: str, labels: list[str], images: int) -> None:
    if not images:
        raise ValueError(
            f"data is {data!r}, which holds no images in class sub-folders: put the images of each "
            f"class into a sub-folder named after it"
        )
    if len(labels) < 2:
        raise ValueError(
            f"data is {data!r}, which has one class only ({labels[0]}): give at least two class "
            f"sub-folders with images"
        )
