import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainables.image_classification.sources.files import digest, read_file
from trainables.image_classification.sources.source import Source, some

_NEEDED = ("path", "label")
_SPLITS = ("train", "val", "test")


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str


def open_csv(data: str, data_root: str | None) -> Source:
    """The images that a .csv file lists: ``path,label`` and perhaps ``split`` (train, val, test).

    Paths are relative to ``data_root`` or, where that is None, to the file's folder.

    Raises:
        ValueError: the file or an image is not there, or a line is not as it must be.

    """
    file = Path(data).expanduser().absolute()
    root = file.parent if data_root is None else Path(data_root).expanduser().absolute()
    rows = _rows(data, file)
    _check_twice(data, rows)
    paths = [root / row.path for row in rows]
    try:
        missing = [
            f"{row.path} (line {row.line})"
            for row, path in zip(rows, paths, strict=True)
            if not path.is_file()
        ]
        stats = [path.stat() for path in paths] if not missing else []
    except OSError as error:
        raise ValueError(
            f"data is {data!r}, of which {error.filename} cannot be read ({error.strerror}): let "
            f"this user read it, or take its line out"
        ) from error
    if missing:
        raise ValueError(
            f"data is {data!r}, where {len(missing)} of {len(rows)} images are not there: "
            f"{some(missing)}: paths are relative to {root}; set data_root to change that"
        )
    names = [row.path for row in rows]
    labels = sorted({row.label for row in rows})
    index = {label: i for i, label in enumerate(labels)}
    splits = np.array([row.split for row in rows])
    return Source(
        data=data,
        names=names,
        labels=labels,
        targets=np.array([index[row.label] for row in rows]),
        validation=splits == "val" if "val" in splits else None,
        test=splits == "test",
        content=digest(root, names, stats),
        read=partial(read_file, paths),
    )


def _rows(data: str, file: Path) -> list[_Row]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = csv.DictReader(opened, strict=True, skipinitialspace=True)
            _check_header(data, lines.fieldnames or [])
            rows = [_row(data, lines.line_num, line) for line in lines]
    except OSError as error:
        raise ValueError(
            f"data is {data!r}, which cannot be read ({error.strerror}): give a .csv file of paths "
            f"and labels that this user may read"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"data is {data!r}, which is no .csv file ({error}): give one in UTF-8, with commas"
        ) from error
    if not rows:
        raise ValueError(f"data is {data!r}, which lists no images: add a line for each")
    return rows


def _check_header(data: str, found: Sequence[str]) -> None:
    if not set(_NEEDED) <= set(found) <= {*_NEEDED, "split"} or len(set(found)) < len(found):
        raise ValueError(
            f"data is {data!r}, whose first line is {','.join(found)!r}: it must name the columns "
            f"path and label, perhaps split, and no others"
        )


def _row(data: str, number: int, line: Mapping[str, Any]) -> _Row:
    fields = list(line.values())
    if None in line or None in fields:
        raise ValueError(
            f"data is {data!r}, whose line {number} has not as many fields as the first: quote "
            f"fields with commas in them"
        )
    path, label, split = (line.get(name, "train").strip() for name in (*_NEEDED, "split"))
    row = _Row(number, path, label, split)
    if not row.path or not row.label:
        raise ValueError(f"data is {data!r}, whose line {number} has no path or no label: add it")
    if row.split not in _SPLITS:
        raise ValueError(
            f"data is {data!r}, whose line {number} has split {row.split!r}: it must be one of "
            f"{', '.join(_SPLITS)}"
        )
    return row


def _check_twice(data: str, rows: list[_Row]) -> None:
    """An image listed twice could be trained on and judged by."""
    counts = Counter(row.path for row in rows)
    twice = [f"{row.path} (line {row.line})" for row in rows if counts[row.path] > 1]
    if twice:
        raise ValueError(
            f"data is {data!r}, which lists an image more than once: {some(twice)}: leave one line "
            f"for each"
        )
