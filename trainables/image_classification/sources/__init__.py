"""Where images come from: which there are and of which class, before any is decoded."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from trainables.image_classification.sources.csv_file import open_csv
from trainables.image_classification.sources.digits import DIGITS, open_digits
from trainables.image_classification.sources.folder import open_folder
from trainables.image_classification.sources.source import Source
from trainables.image_classification.sources.torchvision_set import PREFIX, open_torchvision

__all__ = ["Source", "open_source"]


@lru_cache(maxsize=4)
def open_source(data: str, data_root: str | None = None) -> Source:
    """Find out what ``data`` holds. A process looks once: files added later are not seen.

    A data set of torchvision is downloaded into ``data_root`` where it is not there yet.

    Raises:
        ValueError: it is not there, cannot be read, is empty, or its classes are not sound.

    """
    if data == DIGITS:
        source = open_digits()
    elif data.startswith(PREFIX):
        source = open_torchvision(data, data_root)
    elif data.lower().endswith(".csv") and not Path(data).expanduser().is_dir():
        source = open_csv(data, data_root)
    else:
        source = open_folder(data)
    source.check(np.arange(len(source.names)))
    return source
