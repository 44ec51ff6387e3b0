"""Files that somebody else has named: they are read up to a limit."""

from pathlib import Path
from typing import Any

MOST_CHARACTERS = 2**20
"""Of a file; a device such as ``/dev/zero`` has no end."""


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too long, or not in UTF-8.

    """
    with path.open(encoding="utf-8") as file:
        text = file.read(MOST_CHARACTERS + 1)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters")
    return text


def check_size(document: Any) -> None:
    """See that what was read is no more than a file could say without aliases.

    A few lines of YAML can name each other so often that what they stand for fits into no memory.

    Raises:
        ValueError: it is more.

    """
    left, waiting = MOST_CHARACTERS, [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            left -= len(value)
            waiting.extend(value.values() if isinstance(value, dict) else value)
        if left < 0:
            raise ValueError("its aliases stand for too much, or for themselves; write less")
