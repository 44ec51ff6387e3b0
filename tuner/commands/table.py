"""Tables as plain text, which pipes and grep can take."""

import shutil
import sys
from collections.abc import Iterable, Sequence

from tuner.text import one_line


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 0) -> None:
    """Print columns as wide as what they hold; in a terminal, lines end where it does.

    What cells hold may be a stranger's: it is printed without control characters.
    """
    lines = [[one_line(str(cell)) for cell in row] for row in (headings, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(_cut(" " * indent + "  ".join(cells).rstrip()))


def _cut(line: str) -> str:
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return line if len(line) <= width else line[: width - 1] + "…"
