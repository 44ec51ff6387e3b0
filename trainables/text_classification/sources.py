"""Where texts come from, and of which class each is."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.cache import DiskCache
from trainables.csv_file import SPLITS, read_rows
from trainables.labelled import Labelled, some
from trainables.text_classification.docstrings import DOCSTRINGS, load_docstrings

_logger = logging.getLogger(__name__)
_REMEDY = (
    f"a .csv file of text and label, a folder with train.csv and val.csv, or {DOCSTRINGS}, which "
    "are Python's own"
)


@dataclass(frozen=True)
class Source(Labelled):
    """A number of texts with their classes. A row is an index into ``texts`` too."""

    unit = "texts"
    texts: list[str]


class _Text(NamedTuple):
    text: str
    label: str
    split: str
    place: str
    """Where it was read."""


@lru_cache(maxsize=4)
def open_source(data: str, cache_dir: Path | None = None, cache_bytes: int = 0) -> Source:
    """Read the texts of ``data``. A process reads them once: what is added later is not seen.

    Args:
        data: the setting.
        cache_dir: where what takes long to read is kept, for all processes of the node; None: it
            is read here.
        cache_bytes: the most it may hold.

    Raises:
        ValueError: they are not there, cannot be read, or their classes are not sound.

    """
    if data == DOCSTRINGS:
        cache = DiskCache(cache_dir, cache_bytes) if cache_dir is not None else None
        pairs = load_docstrings(cache)
        texts = [_Text(text, topic, "train", DOCSTRINGS) for text, topic in pairs]
    else:
        texts = _once(data, _read(data, Path(data).expanduser().absolute()))
    labels = sorted({text.label for text in texts})
    index = {label: i for i, label in enumerate(labels)}
    splits = np.array([text.split for text in texts])
    source = Source(
        data=data,
        labels=labels,
        targets=np.array([index[text.label] for text in texts]),
        validation=splits == "val" if "val" in splits else None,
        test=splits == "test",
        content=_digest(texts),
        texts=[text.text for text in texts],
    )
    source.check(np.arange(len(texts)))
    return source


def _read(data: str, path: Path) -> list[_Text]:
    """The texts of a .csv file, or of a folder of such files."""
    if path.is_dir():
        files = {split: path / f"{split}.csv" for split in SPLITS}
        files = {split: file for split, file in files.items() if file.is_file()}
        if not {"train", "val"} <= files.keys():
            raise ValueError(
                f"data is {data!r}, a folder without train.csv and val.csv: give {_REMEDY}"
            )
        return [
            _Text(row.value, row.label, split, f"{file.name}, line {row.line}")
            for split, file in files.items()
            for row in read_rows(file, f"data is {data!r}, in it {file.name}", "text")
        ]
    if path.suffix.lower() != ".csv":
        there = "is no .csv file" if path.exists() else "is not there"
        raise ValueError(f"data is {data!r}, which {there}: give {_REMEDY}")
    return [
        _Text(row.value, row.label, row.split, f"line {row.line}")
        for row in read_rows(path, f"data is {data!r}", "text")
    ]


def _once(data: str, texts: Sequence[_Text]) -> list[_Text]:
    """Each text once: one listed twice could be trained on and judged by.

    Raises:
        ValueError: some have two labels.

    """
    found: dict[str, _Text] = {}
    for text in texts:
        found.setdefault(text.text, text)
    twofold = [
        f"a text is {first.label!r} ({first.place}) and {text.label!r} ({text.place})"
        for text in texts
        if (first := found[text.text]).label != text.label
    ]
    if twofold:
        raise ValueError(f"data is {data!r}, where {some(twofold)}: leave one line for each text")
    if again := len(texts) - len(found):
        places = [text.place for text in texts if found[text.text] is not text]
        _logger.warning("%s: left out %d texts listed before: %s", data, again, some(places))
    return list(found.values())


def _digest(texts: Sequence[_Text]) -> str:
    content = hashlib.sha256()
    for text in texts:
        content.update(json.dumps(text[:3]).encode())
    return content.hexdigest()
