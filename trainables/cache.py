"""A folder on a node's disk, bounded in bytes, for what is costly to compute and can be again."""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike

_MARKER = ".tuner-cache"  # in each folder of ours, with its bytes; folders without it are not ours
_PARTIAL = ".partial"


class DiskCache:
    """Entries that all processes of a node share: folders of files, complete or not there.

    To use an entry, and to build it where it is not there yet::

        with cache.lock(name):
            folder = cache.get(name)
            if folder is None and (partial := cache.make(name, size)):
                ...  # write into it; other processes may help while this one holds the lock
                folder = cache.keep(name)
            ...  # open its files, or do without where folder is None

    An entry is complete when its folder has its name. A build that was cut short leaves a folder
    that ends in ``.partial``, whose bytes the next :meth:`make` takes back.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes

    def lock(self, name: str) -> FileLock:
        """For one process of the node at a time; its holder's entry is not thrown away.

        The system frees the lock of a process that dies.

        Raises:
            OSError: the cache's folder cannot be made.

        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cache.dir is {str(self.directory)!r}, a folder that cannot be made "
                f"({error.strerror}); give another: --set cache.dir=...",
            ) from error
        return FileLock(self.directory / f"{name}.lock")

    def get(self, name: str) -> Path | None:
        """The entry's folder, marked as used just now; None: it is not there."""
        folder = self.directory / name
        try:
            os.utime(folder / _MARKER)
        except FileNotFoundError:
            return None
        return folder if self.max_bytes else None

    def make(self, name: str, size: int, spare: Collection[str] = ()) -> Path | None:
        """Make room for an entry of ``size`` bytes; return its folder, empty, to write it into.

        The least recently used entries go, but none of those in ``spare``. None: even so there is
        not room enough, in the cache or on its disk. To be called with the entry's lock held.
        """
        partial = self.directory / f"{name}{_PARTIAL}"
        with self._changes():
            _remove(partial)
            if not self._make_room(size, spare):
                return None
            partial.mkdir()
            (partial / _MARKER).write_text(str(size), encoding="utf-8")
        return partial

    def keep(self, name: str) -> Path:
        """Declare what :meth:`make` began complete, and return where its folder is now."""
        partial = self.directory / f"{name}{_PARTIAL}"
        files = [path for path in partial.rglob("*") if path.is_file() and path.name != _MARKER]
        size = sum(path.stat().st_size for path in files)
        with self._changes():
            (partial / _MARKER).write_text(str(size), encoding="utf-8")
            return partial.rename(self.directory / name)

    def _changes(self) -> FileLock:
        """Held while entries come and go, and so their sum with them."""
        return self.lock("changes")

    def _make_room(self, size: int, spare: Collection[str]) -> bool:
        entries = [entry for entry in self._entries() if entry.complete or not self._drop(entry)]
        excess = sum(entry.size for entry in entries) + size - self.max_bytes
        shortage = size - shutil.disk_usage(self.directory).free
        needed = max(excess, shortage)
        candidates = [entry for entry in entries if entry.complete and entry.name not in spare]
        if needed > sum(entry.size for entry in candidates):
            return False  # then none of them goes for nothing
        for entry in sorted(candidates, key=lambda entry: entry.used):
            if needed > 0 and self._drop(entry):
                needed -= entry.size
        # Asked again: what a process has mapped stays on the disk until that process lets it go.
        return needed <= 0 and size <= shutil.disk_usage(self.directory).free

    def _entries(self) -> list["_Entry"]:
        """All folders of ours, complete or not."""
        return [
            _Entry(
                folder=marker.parent,
                size=int(marker.read_text(encoding="utf-8") or 0),  # empty: the write was cut short
                used=marker.stat().st_mtime_ns,
            )
            for marker in self.directory.glob(f"*/{_MARKER}")
        ]

    def _drop(self, entry: "_Entry") -> bool:
        """Delete it, unless some process holds its lock. Whether it is gone.

        On POSIX, a file that a process has mapped or open stays whole for that process, though its
        name is gone: whoever trains on the entry is not disturbed.
        """
        try:
            with self.lock(entry.name).acquire(timeout=0):
                if entry.complete:  # cut short, the removal leaves nothing that looks complete
                    _remove(entry.partial)
                    entry.folder.rename(entry.partial)
                _remove(entry.partial)
        except Timeout:
            return False
        return True


@dataclass(frozen=True)
class _Entry:
    folder: Path
    size: int
    """In bytes: while it is built, those promised."""
    used: int
    """When it was last used, in nanoseconds."""

    @property
    def complete(self) -> bool:
        return self.folder.suffix != _PARTIAL

    @property
    def name(self) -> str:
        return self.folder.name.removesuffix(_PARTIAL)

    @property
    def partial(self) -> Path:
        return self.folder.with_name(f"{self.name}{_PARTIAL}")


def _remove(folder: Path) -> None:
    """Remove it with all that is in it, its marker last: until then the folder is ours."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _MARKER:
            path.unlink()
    (folder / _MARKER).unlink(missing_ok=True)
    folder.rmdir()


def new_array(file: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """A new .npy file of zeros, memory-mapped to be written; its bytes on the disk are taken now.

    Raises:
        OSError: the disk is full. Found out later, inside the mapping, it would kill the process.

    """
    array = open_memmap(file, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return array
