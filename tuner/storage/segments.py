"""A journal on object storage: files of so many of its lines, named by the byte they begin at."""

import re
from collections.abc import Iterable
from pathlib import Path

from tuner.storage.remote import Remote

SEGMENTS = "journal"
"""The folder of a journal's segments, beside where its file would be."""
SEGMENT_BYTES = 2**16
"""A segment of the journal is written anew with what follows until it has so many."""


def segment_name(start: int) -> str:
    """The name of the segment that begins at byte ``start``."""
    return f"{start:012d}.jsonl"


def segment_starts(names: Iterable[str]) -> dict[int, str]:
    """Those of ``names`` that are segments', by the byte each begins at."""
    found = {name: re.fullmatch(r"(?:.*/)?(\d{12})\.jsonl", name) for name in names}
    return {int(match[1]): name for name, match in found.items() if match}


def assemble(segments: dict[int, bytes]) -> bytes:
    """The journal that segments add up to, by the byte each begins at.

    Where one begins before the end of the one before it, that one's rest does not count.

    Raises:
        ValueError: there is a gap.

    """
    whole = b""
    for start, content in sorted(segments.items()):
        if start > len(whole):
            raise ValueError(f"bytes {len(whole)} to {start} of the journal are missing")
        whole = whole[:start] + content
    return whole


class Segments:
    """Brings a journal's new lines to the storage, as segments of its own.

    Args:
        remote: the run's folder.
        journal: the file.
        folder: the segments', in ``remote``.
        start: bytes of it that are there already.

    """

    def __init__(self, remote: Remote, journal: Path, folder: str, start: int) -> None:
        self._remote, self._journal, self._folder = remote, journal, folder
        self._start = self._brought = start

    def bring(self) -> None:
        """Bring the whole lines that are new."""
        if self._journal.stat().st_size <= self._brought:
            return
        with self._journal.open("rb") as file:
            file.seek(self._start)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        if self._start + len(content) <= self._brought:
            return
        self._remote.write(f"{self._folder}/{segment_name(self._start)}", content)
        self._brought = self._start + len(content)
        if len(content) >= SEGMENT_BYTES:
            self._start = self._brought
