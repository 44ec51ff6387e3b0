"""Files that somebody else has named: they are read up to a limit."""

from pathlib import Path

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
