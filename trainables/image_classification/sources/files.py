"""What folders and .csv files have in common: images that are files."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from trainables.image_classification.decoding import read_image


def read_file(paths: Sequence[Path], row: int, size: int) -> Image.Image:
    """Decode one of ``paths``."""
    return read_image(paths[row].read_bytes(), size)


def digest(root: Path, names: Sequence[str], stats: Sequence[os.stat_result]) -> str:
    """Of which files there are in ``root``, their sizes and when they were last changed."""
    content = hashlib.sha256(str(root).encode())
    for name, stat in zip(names, stats, strict=True):
        content.update(json.dumps([name, stat.st_size, stat.st_mtime_ns]).encode())
    return content.hexdigest()


def visible_files(folder: Path) -> Iterator[Path]:
    """All files of a folder, however deep, in order; hidden ones, and hidden folders, left out.

    Raises:
        OSError: one of its folders cannot be read.

    """

    def refuse(error: OSError) -> None:  # os.walk passes over what it cannot read
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)
