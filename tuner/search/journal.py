"""The append-only record of a search: one JSON object a line, and the only state that is kept."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tuner.errors import StorageError, UserError
from tuner.fields import parse_object
from tuner.search.events import check_event

JOURNAL = "journal.jsonl"
"""The file's name, in the run's folder."""

Event = dict[str, Any]


class Journal:
    """Events in a file, each written whole before the search acts on it.

    A line that was cut off when the process died is dropped on opening: it was never acted on.
    While it is open, no other process can open it; :func:`read_journal` still can read it.

    Args:
        path: the file.
        check: called before each event; what it raises, the event is not written for.

    Raises:
        UserError: another process has it open.

    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        self.path, self._check = path, check
        self._problem: StorageError | None = None
        self._file = path.open("a", encoding="utf-8")
        try:
            _keep_others_out(self._file, path)
            self.events = _read(path)
        except UserError:
            self._file.close()
            raise

    def append(self, event: Event) -> None:
        """Write one event; it survives the death of this process.

        Raises:
            StorageError: it cannot be written, and no later one will be.

        """
        if self._problem:  # a line that was cut off may be the last, and never in the midst
            raise self._problem
        try:
            self._check()
            self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
            self._file.flush()
        except StorageError as problem:
            self._problem = problem
            raise
        except OSError as error:
            self._problem = StorageError(f"{self.path} cannot be written: {error.strerror}")
            raise self._problem from error

    def __str__(self) -> str:
        return str(self.path)

    def close(self) -> None:
        """Close the file; the journal can be opened again."""
        with suppress(OSError):  # what could not be written before, cannot be now
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class MemoryJournal:
    """A journal that is not kept: for simulations and plans, or to look at one that is.

    Args:
        events: those so far.
        name: what errors call it.

    """

    def __init__(self, events: list[Event] | None = None, name: str = "the journal") -> None:
        self.events, self._name = events or [], name
        self.written: list[Event] = []

    def __str__(self) -> str:
        return self._name

    def append(self, event: Event) -> None:
        """Keep one event in memory."""
        self.written.append(event)


class NoJournal:
    """Remembers nothing: for simulations too long to record."""

    events: tuple[Event, ...] = ()

    def append(self, event: Event) -> None:
        """Drop the event."""


def is_open(path: Path) -> bool:
    """Whether a process has the journal open; False too where the file system knows no locks."""
    with path.open("rb") as file:
        return not _locks(file, fcntl.LOCK_SH)


def _keep_others_out(file: IO[str], path: Path) -> None:
    """Lock the journal until it is closed, at the latest by the end of this process."""
    if _locks(file, fcntl.LOCK_EX):
        return
    time.sleep(0.2)  # it may have been is_open, which holds a lock for a moment
    if not _locks(file, fcntl.LOCK_EX):
        raise UserError(
            f"{path.parent} is being run by another process, which has {path.name} locked; let it "
            "finish, or stop it first (Ctrl-C in its terminal)"
        )


def _locks(file: IO[Any], kind: int) -> bool:
    """Try to lock ``file``; False where another process, or another part of this one, holds it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system, as on some network mounts
        return True
    return True


def read_journal(path: Path) -> Iterator[Event]:
    """The events of a journal that another process may be writing; the file is left as it is.

    Raises:
        UserError: it cannot be read, or a line that is not the last one is no event of a search.

    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, start=1):
        if number == len(lines):
            return  # what follows the last newline: nothing, or an event still being written
        try:
            event = parse_object(line)
            check_event(event)
        except ValueError as error:
            raise UserError(
                f"{path}: line {number} is no event of a search: {error}; the journal was damaged "
                "from outside, or written by another version of tuner"
            ) from error
        yield event


def _read(path: Path) -> list[Event]:
    events = list(read_journal(path))
    with path.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
    return events
