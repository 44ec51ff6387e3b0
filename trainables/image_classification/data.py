"""What a trial trains on and is judged by: which images, and of which class."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainables.cache import DiskCache
from trainables.image_classification.config import Settings
from trainables.image_classification.decoding import stored_size
from trainables.image_classification.pixels import Pixels, open_pixels
from trainables.image_classification.sources import Source, open_source
from trainables.labelled import Rows, shuffled_classes, some

_logger = logging.getLogger(__name__)


class ImageSet(Dataset[tuple[Tensor, Tensor]]):
    """Some rows of a source's images, with the class of each. An index counts these rows."""

    def __init__(self, pixels: Pixels, rows: Rows, targets: Tensor) -> None:
        self.pixels = pixels
        self.rows = rows
        self.targets = targets
        """The class of each image: (N,) int64."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each list of indices, images (n, 3, S, S) uint8 and classes (n,) int64.

        The images are channels last in memory. Where they are streamed, those of the next few
        batches are decoded while one is worked on.
        """
        images = self.pixels.batches([self.rows[indices] for indices in batches])
        for indices, batch in zip(batches, images, strict=True):
            yield batch, self.targets[indices]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images and classes of one list of indices, as :meth:`batches` has them."""
        return next(self.batches([indices]))


@dataclass(frozen=True)
class ImageData:
    """What a trial trains on, what it is judged by, and the classes in the order of the logits."""

    train: ImageSet
    val: ImageSet
    test: ImageSet | None
    """For the test of what came out, where the data have images for that."""
    labels: list[str]
    content: str
    """A digest of which pixels and class each row of each set has."""
    entry: str | None
    """The entry of the cache that holds the pixels; None: they are streamed."""

    def joined(self) -> ImageSet:
        """Train and val as one set; the rows of train come first."""
        rows = np.concatenate([self.train.rows, self.val.rows])
        return ImageSet(self.train.pixels, rows, torch.cat([self.train.targets, self.val.targets]))


def load_data(settings: Settings, cache_dir: Path, cache_bytes: int, workers: int = 0) -> ImageData:
    """Open the images that ``settings`` name, decoding them first where no trial did so yet.

    Args:
        settings: the trial's settings.
        cache_dir: where decoded images are kept, for all processes of the node.
        cache_bytes: the most it may hold. Images that do not fit are streamed.
        workers: the processes that decode streamed images; 0: this one does.

    Raises:
        ValueError: the data cannot be used; the message says what to do.

    """
    data = _load(
        data=settings.data,
        data_root=settings.data_root,
        image_size=settings.image_size,
        validation_fraction=settings.validation_fraction,
        split_seed=settings.split_seed,
        max_images_per_class=settings.max_images_per_class,
        skip_corrupt=settings.corrupt_images == "skip",
        cache_dir=cache_dir,
        cache_bytes=cache_bytes,
        workers=workers,
    )
    if data.entry is not None:  # a process that has it mapped uses it too
        DiskCache(cache_dir, cache_bytes).get(data.entry)
    return data


# The arguments are those of Settings that matter here: trials that differ in others share the data.
@lru_cache(maxsize=4)
def _load(
    *,
    data: str,
    data_root: str | None,
    image_size: int,
    validation_fraction: float,
    split_seed: int,
    max_images_per_class: int | None,
    skip_corrupt: bool,
    cache_dir: Path,
    cache_bytes: int,
    workers: int,
) -> ImageData:
    source = open_source(data, data_root)
    cache = DiskCache(cache_dir, cache_bytes)
    pixels = open_pixels(source, stored_size(image_size), cache, workers)
    rows = _sound_rows(source, pixels.corrupt, skip=skip_corrupt)
    test, rows = rows[source.test[rows]], rows[~source.test[rows]]
    train, val = source.split(rows, validation_fraction, split_seed)
    if max_images_per_class is not None:
        train = _some_of_each_class(train, source.targets, max_images_per_class, split_seed)
    content = hashlib.sha256(pixels.key.encode())
    for part in (train, val, test):
        content.update(f"{len(part)} ".encode() + part.tobytes() + source.targets[part].tobytes())
    targets = torch.from_numpy(source.targets)
    return ImageData(
        train=ImageSet(pixels, train, targets[train]),
        val=ImageSet(pixels, val, targets[val]),
        test=ImageSet(pixels, test, targets[test]) if len(test) else None,
        labels=source.labels,
        content=content.hexdigest()[:24],
        entry=pixels.entry,
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


def _some_of_each_class(rows: Rows, targets: Rows, most: int, seed: int) -> Rows:
    """At most ``most`` rows of each class."""
    classes = shuffled_classes(rows, targets, seed)
    return np.sort(np.concatenate([own[:most] for own in classes]))
