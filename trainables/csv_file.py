"""A .csv file of labelled examples: of each its class, and perhaps its part of the data."""

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "val", "test")


class Row(NamedTuple):
    """An example: where it stands, what it is, its class and its part of the data."""

    line: int
    """Where it begins, from 1."""
    value: str
    label: str
    split: str


def read_rows(file: Path, name: str, column: str) -> list[Row]:
    """The rows of a .csv file with the columns ``column``, ``label`` and perhaps ``split``.

    Args:
        file: the file, in UTF-8.
        name: what messages call it.
        column: what holds the examples.

    Raises:
        ValueError: the file cannot be read, or a line is not as it must be; it is named.

    """
    needed = {column, "label"}
    header, lines = read_table(file, name)
    if not needed <= set(header) <= {*needed, "split"} or len(set(header)) < len(header):
        raise ValueError(
            f"{name}, whose first line is {','.join(header)!r}: it must name the columns {column} "
            f"and label, perhaps split, and no others"
        )
    rows = [_row(name, column, line, fields) for line, fields in lines]
    if not rows:
        raise ValueError(f"{name}, which lists no examples: add a line for each")
    return rows


def read_table(file: Path, name: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The names in the first line; of each other line its number and its fields by these names.

    Raises:
        ValueError: the file cannot be read, or a line has not as many fields as the first.

    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{name}, which cannot be read ({error.strerror}): give a .csv file that this user "
            f"may read"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}, which is no .csv file (line {line}: {error}): give one in UTF-8, with commas"
        ) from error
    lines = _lines(text, name)
    _, header = next(lines, (1, []))
    return header, [
        (line, _by_name(name, line, header, fields)) for line, fields in lines if fields
    ]


def _lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line, and where it begins: one with quotes may be of several."""
    csv.field_size_limit(2**31 - 1)  # by default, a text of 131,072 characters is none
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True)
    begins = 1
    try:
        for fields in reader:
            yield begins, fields
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}, which is no .csv file (line {begins}: {error}): give one in UTF-8, with "
            f"commas"
        ) from error


def _by_name(name: str, line: int, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise ValueError(
            f"{name}, whose line {line} has not as many fields as the first: quote fields with "
            f"commas in them"
        )
    return dict(zip(header, fields, strict=True))


def _row(name: str, column: str, line: int, fields: dict[str, str]) -> Row:
    value, label, split = (fields.get(key, "train").strip() for key in (column, "label", "split"))
    if not value or not label:
        raise ValueError(f"{name}, whose line {line} has no {column} or no label: add it")
    if split not in SPLITS:
        raise ValueError(
            f"{name}, whose line {line} has split {split!r}: it must be one of {', '.join(SPLITS)}"
        )
    return Row(line, value, label, split)
