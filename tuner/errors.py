"""Errors that end a command, each with the exit code that the shell sees."""

import errno
import os


class UserError(Exception):
    """Something the user can mend: one line that names the key, the value, the rule, the remedy.

    What a file has brought into it of line ends and orders to a terminal is shown, not obeyed.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class InterruptedRunError(UserError):
    """The run was stopped from outside; its state is saved and the message says how to resume."""

    exit_code = 130


class DetachedError(UserError):
    """The user left a job to itself; it goes on, and the message says how to follow it again."""

    exit_code = 130


class StorageError(UserError):
    """What a run is kept in takes no more: full, out of reach, or another's."""


class TakenOverError(StorageError):
    """Another process works on the run now: nothing of it is this one's to write or delete."""


FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "unexpected pos ")
"""What errors of a full disk say: Python's, Arrow's and safetensors'; at last, torch.save's."""


def is_full(message: str) -> bool:
    """Whether an error comes from a disk without room, wherever that lies."""
    return any(words in message for words in FULL)


def storage_problem(error: BaseException | None) -> StorageError | None:
    """What a full disk or a failing storage has led to, be it that others made something of it."""
    if isinstance(error, UserError) and not isinstance(error, StorageError):
        return None
    found = None
    while error is not None and not isinstance(error, StorageError):
        found = _disk_problem(error) or found  # the innermost says it without a trace
        error = error.__cause__ or error.__context__
    return StorageError(found) if error is None and found else error


def _disk_problem(error: BaseException) -> str | None:
    said = " ".join(str(error).split())[:300]
    if is_full(str(error)):
        return f"a disk is full: {said}"
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EROFS, errno.ESTALE):
        return f"a disk fails: {said}"
    return None
