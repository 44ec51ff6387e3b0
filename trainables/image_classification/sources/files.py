"""What folders and .csv files have in common: images that are files."""

import hashlib
import json
import os
from collections.abc import Sequence
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
