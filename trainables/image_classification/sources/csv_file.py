from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from trainables.csv_file import Row, read_rows
from trainables.image_classification.sources.files import digest, read_file
from trainables.image_classification.sources.source import Source
from trainables.labelled import some


def open_csv(data: str, data_root: str | None) -> Source:
    """The images that a .csv file lists: ``path,label`` and perhaps ``split`` (train, val, test).

    Paths are relative to ``data_root`` or, where that is None, to the file's folder.

    Raises:
        ValueError: the file or an image is not there, or a line is not as it must be.

    """
    file = Path(data).expanduser().absolute()
    root = file.parent if data_root is None else Path(data_root).expanduser().absolute()
    rows = read_rows(file, f"data is {data!r}", "path")
    _check_twice(data, rows)
    paths = [root / row.value for row in rows]
    try:
        missing = [
            f"{row.value} (line {row.line})"
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
    names = [row.value for row in rows]
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


def _check_twice(data: str, rows: list[Row]) -> None:
    """An image listed twice could be trained on and judged by."""
    counts = Counter(row.value for row in rows)
    twice = [f"{row.value} (line {row.line})" for row in rows if counts[row.value] > 1]
    if twice:
        raise ValueError(
            f"data is {data!r}, which lists an image more than once: {some(twice)}: leave one line "
            f"for each"
        )
