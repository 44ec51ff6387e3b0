"""Real texts in real files: docstrings of three packages, as a .csv."""

import csv
from collections.abc import Iterable
from pathlib import Path

from trainables.text_classification.docstrings import docstrings

PACKAGES = ("asyncio", "email", "logging")


def write_docstrings(
    file: Path, packages: Iterable[str] = PACKAGES, count: int = 80, skip: int = 0
) -> Path:
    """Write ``count`` docstrings of each package, without its first ``skip``, labelled with it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        for package in packages:
            texts = list(dict.fromkeys(docstrings(package)))[skip : skip + count]
            assert len(texts) == count
            writer.writerows([text, package] for text in texts)
    return file
