"""Images, decoded once into one memory-mapped array that all trials and ranks of a node share."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trainables.image_classification.config import Settings
from trainables.image_classification.decoding import stored_size, to_square
from trainables.image_classification.sources import Source, open_source, some

Rows = NDArray[np.int64]
"""Indices into the images of a source."""

_LAYOUT = 1  # raise it when images are stored in another way: old caches are then left alone
_logger = logging.getLogger(__name__)


class ImageSet(Dataset[tuple[Tensor, Tensor]]):
    """Some rows of the stored images, with the class of each."""

    def __init__(self, images: NDArray[np.uint8], rows: NDArray[np.int64], targets: Tensor) -> None:
        self._images = images
        self._rows = rows
        self.targets = targets

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) uint8, channels last in memory, and classes (N,) int64."""
        pixels = np.asarray(self._images[self._rows[indices]])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), self.targets[indices]


@dataclass(frozen=True)
class ImageData:
    """What a trial trains on, what it is judged by, and the classes in the order of the logits."""

    train: ImageSet
    val: ImageSet
    labels: list[str]


def load_data(settings: Settings, cache_dir: Path) -> ImageData:
    """Open the images that ``settings`` name, decoding them first where no trial did so yet.

    Raises:
        ValueError: the data cannot be used; the message says what to do.

    """
    return _load(
        data=settings.data,
        image_size=settings.image_size,
        validation_fraction=settings.validation_fraction,
        split_seed=settings.split_seed,
        max_images_per_class=settings.max_images_per_class,
        skip_corrupt=settings.corrupt_images == "skip",
        cache_dir=cache_dir,
    )


# The arguments are those of Settings that matter here: trials that differ in others share the data.
@lru_cache(maxsize=4)
def _load(
    *,
    data: str,
    image_size: int,
    validation_fraction: float,
    split_seed: int,
    max_images_per_class: int | None,
    skip_corrupt: bool,
    cache_dir: Path,
) -> ImageData:
    source = open_source(data)
    images, corrupt = _decoded(source, stored_size(image_size), cache_dir)
    rows = _sound_rows(source, corrupt, skip=skip_corrupt)
    if source.validation is None:
        train, val = _split(rows, source.targets, validation_fraction, split_seed)
    else:
        train, val = rows[~source.validation[rows]], rows[source.validation[rows]]
    if max_images_per_class is not None:
        train = _some_of_each_class(train, source.targets, max_images_per_class, split_seed)
    targets = torch.from_numpy(source.targets)
    return ImageData(
        ImageSet(images, train, targets[train]), ImageSet(images, val, targets[val]), source.labels
    )


def _sound_rows(source: Source, corrupt: dict[int, str], *, skip: bool) -> Rows:
    """All rows but the ``corrupt`` ones, which are refused or reported."""
    names = [f"{source.names[row]} ({reason})" for row, reason in corrupt.items()]
    if names and not skip:
        raise ValueError(
            f"data is {source.data!r}, where {len(names)} of {len(source.names)} files are no "
            f"images: {some(names)}: take them away, or set corrupt_images: skip"
        )
    if names:
        left_out = "%s: left out %d files that are no images: %s"
        _logger.warning(left_out, source.data, len(names), ", ".join(names))
    rows = np.array([row for row in range(len(source.names)) if row not in corrupt], dtype=np.int64)
    source.check(rows)
    return rows


def _split(rows: Rows, targets: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Training and validation rows: of every class the same part, but at least one image each."""
    train, val = [], []
    for own in _shuffled_classes(rows, targets, seed):
        held_out = min(max(round(fraction * len(own)), 1), len(own) - 1)
        val.append(own[:held_out])
        train.append(own[held_out:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def _some_of_each_class(rows: Rows, targets: Rows, most: int, seed: int) -> Rows:
    """At most ``most`` rows of each class."""
    classes = _shuffled_classes(rows, targets, seed)
    return np.sort(np.concatenate([own[:most] for own in classes]))


def _shuffled_classes(rows: Rows, targets: Rows, seed: int) -> list[Rows]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(rows[targets[rows] == target]) for target in np.unique(targets[rows])]


def _decoded(
    source: Source, size: int, cache_dir: Path
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """The stored images, read-only, and why which of them could not be decoded.

    The first process to come decodes; the others wait for it. The folder is renamed when it is
    complete, so a build that was cut short is never taken for a finished one.
    """
    key = hashlib.sha256(json.dumps([_LAYOUT, source.content, size]).encode()).hexdigest()[:24]
    folder = cache_dir / f"images-{key}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _decode(source, size, partial)
            partial.rename(folder)
    images = np.load(folder / "images.npy", mmap_mode="r")
    corrupt = json.loads((folder / "corrupt.json").read_text(encoding="utf-8"))
    return images, {int(row): reason for row, reason in corrupt.items()}


def _decode(source: Source, size: int, folder: Path) -> None:
    count = len(source.names)
    needed, free = count * size * size * 3, shutil.disk_usage(folder).free
    if needed > free:  # running out later, inside the mapping, would kill the process
        raise ValueError(
            f"image_size makes {count} decoded images take {needed / 1e9:.1f} GB, but "
            f"{folder.parent} has {free / 1e9:.1f} GB free: make room, or give a smaller image_size"
        )
    images = open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))

    def fill(row: int) -> str | None:
        try:
            images[row] = to_square(source.read(row), size)
        except ValueError as error:
            return str(error)
        return None

    # Threads: decoding and scaling let go of the interpreter lock.
    try:
        with ThreadPoolExecutor() as pool:
            reasons = dict(enumerate(pool.map(fill, range(count))))
    except OSError as error:  # not the image's fault, and perhaps not lasting: keep nothing
        raise ValueError(
            f"data is {source.data!r}, of which {error.filename} cannot be read "
            f"({error.strerror}): let this user read it, or take it away"
        ) from error
    images.flush()
    corrupt = {row: reason for row, reason in reasons.items() if reason is not None}
    (folder / "corrupt.json").write_text(json.dumps(corrupt), encoding="utf-8")
