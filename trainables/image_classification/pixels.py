"""The pixels of a source's images: decoded once for all trials and ranks, or anew every epoch."""

import hashlib
import json
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainables.cache import DiskCache, new_array
from trainables.image_classification.decoding import to_square
from trainables.image_classification.sources import Source
from trainables.labelled import Rows

_LAYOUT = 2  # raise it when images are decoded or stored in another way
_CHUNK = 64  # images that a process decodes at a time
_logger = logging.getLogger(__name__)


class Pixels(ABC):
    """The images of a source as squares of one size."""

    key: str
    """A digest of the images and their size."""
    entry: str | None
    """The entry of the cache that holds them; None: they are in none."""
    corrupt: dict[int, str]
    """The rows that could not be decoded, and why."""

    @abstractmethod
    def batches(self, batches: Sequence[Rows]) -> Iterator[Tensor]:
        """For each of ``batches`` its images (n, 3, S, S) uint8, channels last in memory."""


class StoredPixels(Pixels):
    """Decoded into one memory-mapped array."""

    def __init__(self, key: str, folder: Path) -> None:
        self.key = key
        self.entry = folder.name
        self.corrupt = _read_corrupt(folder)
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r")

    def batches(self, batches: Sequence[Rows]) -> Iterator[Tensor]:
        """For each of ``batches`` its images, copied out of the mapping."""
        for rows in batches:
            yield torch.from_numpy(np.asarray(self.images[rows])).permute(0, 3, 1, 2)


class StreamedPixels(Pixels):
    """Decoded whenever they are asked for, by ``workers`` processes, a few batches ahead."""

    entry = None

    def __init__(
        self, key: str, corrupt: dict[int, str], source: Source, size: int, workers: int
    ) -> None:
        self.key = key
        self.corrupt = corrupt
        self._source = source
        self._size = size
        self._workers = workers

    def batches(self, batches: Sequence[Rows]) -> Iterator[Tensor]:
        """For each of ``batches`` its images, in pinned memory where there is a GPU.

        Raises:
            ValueError: a file was taken away or damaged after it had been looked at.

        """
        loader: DataLoader[tuple[Tensor, str]] = DataLoader(
            _Squares(self._source, self._size),
            batch_size=None,
            sampler=[rows.tolist() for rows in batches],
            num_workers=self._workers if len(batches) > 1 else 0,
            pin_memory=torch.cuda.is_available(),
            # Its own: or random transforms would draw otherwise than over stored images.
            generator=torch.Generator(),
        )
        for images, fault in loader:
            if fault:
                raise ValueError(
                    f"data is {self._source.data!r}, of which {fault} cannot be decoded any more: "
                    f"leave the data as they are during a run"
                )
            yield images.permute(0, 3, 1, 2)


class _Squares(Dataset[tuple[Tensor, str]]):
    """By the rows of a batch, its images (n, S, S, 3), and what is wrong with one of them."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._size = size

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, str]:
        images = np.empty((len(rows), self._size, self._size, 3), dtype=np.uint8)
        fault = ""
        for image, row in zip(images, rows, strict=True):
            try:
                image[:] = to_square(self._source.read(row, self._size), self._size)
            except (ValueError, OSError) as error:  # as a value: its traceback is of no use
                fault = f"{self._source.names[row]} ({error})"
        return torch.from_numpy(images), fault


def open_pixels(source: Source, size: int, cache: DiskCache, workers: int) -> Pixels:
    """The images of ``source`` as squares of side ``size``.

    The first process of a node to come decodes them into the cache; the others wait for it. Where
    there is not room enough, each image is decoded once to see whether it can be, and then anew
    whenever it is needed, by ``workers`` processes.

    Raises:
        ValueError: a file cannot be read.

    """
    key = hashlib.sha256(json.dumps([_LAYOUT, source.content, size]).encode()).hexdigest()[:24]
    name = f"images-{key}"
    with cache.lock(name):
        if folder := cache.get(name) or _store(source, size, cache, name):
            return StoredPixels(key, folder)
    _logger.warning(
        "%s: its %d images are decoded anew every epoch: decoded, they take %.3f GB, but the cache "
        "may hold %.3f GB (cache.max_gb) and its disk has %.1f GB free",
        source.data,
        len(source.names),
        _bytes(source, size) / 1e9,
        cache.max_bytes / 1e9,
        shutil.disk_usage(cache.directory).free / 1e9,
    )
    return StreamedPixels(key, _find_corrupt(source, size, cache, key), source, size, workers)


def _bytes(source: Source, size: int) -> int:
    return len(source.names) * size * size * 3


def _store(source: Source, size: int, cache: DiskCache, name: str) -> Path | None:
    """Decode all images into a new entry; None: there is no room for it."""
    partial = cache.make(name, _bytes(source, size))
    if partial is None:
        return None
    file = partial / "images.npy"
    try:
        images = new_array(file, np.uint8, (len(source.names), size, size, 3))
    except OSError:  # someone else was faster to fill the disk
        return None
    _logger.info("%s: decoding %d images, once", source.data, len(source.names))
    _write_corrupt(partial, _decode(source, size, file))
    images.flush()
    return cache.keep(name)


def _find_corrupt(source: Source, size: int, cache: DiskCache, key: str) -> dict[int, str]:
    """Decode all images once for what cannot be decoded, and remember that in the cache."""
    name = f"corrupt-{key}"
    with cache.lock(name):
        if folder := cache.get(name):
            return _read_corrupt(folder)
        corrupt = _decode(source, size, None)
        if partial := cache.make(name, len(json.dumps(corrupt))):
            _write_corrupt(partial, corrupt)
            cache.keep(name)
        return corrupt


class _Chunks(Dataset[tuple[dict[int, str], str]]):
    """By a range of rows, why some of them cannot be decoded; the others go into ``file``.

    Second, what keeps a file from being read, if anything does: as a value, for a DataLoader makes
    another exception of one that is raised.
    """

    def __init__(self, source: Source, size: int, file: Path | None) -> None:
        self._source = source
        self._size = size
        self._file = file

    def __getitem__(self, rows: range) -> tuple[dict[int, str], str]:
        corrupt = {}
        with _writer(self._file) as write:
            for row in rows:
                try:
                    write(row, to_square(self._source.read(row, self._size), self._size))
                except ValueError as error:
                    corrupt[row] = str(error)
                except OSError as error:
                    return corrupt, f"{error.filename} cannot be read ({error.strerror})"
        return corrupt, ""


@contextmanager
def _writer(file: Path | None) -> Iterator[Callable[[int, NDArray[np.uint8]], object]]:
    """Writes squares into the rows of the array in ``file``.

    Not through a mapping: to have the system notice each page that changes takes longer.
    """
    if file is None:
        yield lambda *_: None
        return
    offset = np.load(file, mmap_mode="r").offset
    with file.open("r+b", buffering=0) as opened:
        yield lambda row, square: os.pwrite(
            opened.fileno(), square.data, offset + row * square.nbytes
        )


def _decode(source: Source, size: int, file: Path | None) -> dict[int, str]:
    """Decode all images, into the array in ``file`` if given; return why some could not be."""
    count = len(source.names)
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    loader: DataLoader[tuple[dict[int, str], str]] = DataLoader(
        _Chunks(source, size, file),
        batch_size=None,
        sampler=chunks,
        # processes: threads would wait for each other's Python between the files
        num_workers=min(os.cpu_count() or 1, len(chunks)) if len(chunks) > 1 else 0,
        generator=torch.Generator(),
    )
    corrupt: dict[int, str] = {}
    for faults, unreadable in loader:
        if unreadable:  # not the image's fault, and perhaps not lasting: keep nothing
            raise ValueError(
                f"data is {source.data!r}, of which {unreadable}: let this user read it, or take "
                "it away"
            )
        corrupt |= faults
    return corrupt


def _write_corrupt(folder: Path, corrupt: dict[int, str]) -> None:
    (folder / "corrupt.json").write_text(json.dumps(corrupt), encoding="utf-8")


def _read_corrupt(folder: Path) -> dict[int, str]:
    corrupt = json.loads((folder / "corrupt.json").read_text(encoding="utf-8"))
    return {int(row): reason for row, reason in corrupt.items()}
