"""Checkpoints: the workers write them to the storage, which is a folder or remote."""

import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tuner.errors import StorageError, UserError
from tuner.storage.places import is_remote, local_folder
from tuner.storage.remote import open_remote, unreachable

_CHECKPOINTS = "trial_*/checkpoint_*"


def placed(events: Iterable[dict[str, Any]], location: str) -> list[dict[str, Any]]:
    """Events of a journal, with their checkpoints where the run is now.

    A run folder may have been moved, or be a stranger's: no event makes anything be read or deleted
    outside of it.

    Raises:
        UserError: one names what is no checkpoint of a run.

    """
    top = open_remote(location).path if is_remote(location) else str(local_folder(location))
    found = []
    for event in events:
        if event["event"] == "checkpoint":
            inside = "/".join(Path(event["path"]).parts[-2:])
            if not fnmatch(inside, _CHECKPOINTS):
                raise UserError(
                    f"{location}: its journal names a checkpoint {event['path']!r}, which is not "
                    "where a run has its checkpoints; it was changed from outside"
                )
            event = {**event, "path": f"{top}/{inside}"}  # noqa: PLW2901 - the same, elsewhere
        found.append(event)
    return found


@contextmanager
def checkpoint_at(storage: str, path: str | Path) -> Iterator[Path]:
    """A checkpoint as a folder of this machine, for a while.

    Args:
        storage: the run's, or whatever lies on the same file system.
        path: of the checkpoint, as the journal has it.

    Raises:
        DamagedCheckpointError: it is gone.
        StorageError: it cannot be fetched.

    """
    from trainables.checkpoint import DamagedCheckpointError

    gone = DamagedCheckpointError(f"{path} is gone")
    if not is_remote(storage):
        try:
            Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise gone from None
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        yield Path(path)
        return
    from pyarrow.fs import copy_files

    remote = open_remote(storage)
    with tempfile.TemporaryDirectory(prefix="tuner-checkpoint-") as folder:
        try:
            copy_files(str(path), folder, source_filesystem=remote.filesystem)
        except FileNotFoundError:
            raise gone from None
        except OSError as error:
            raise StorageError(str(unreachable(storage, error))) from error
        yield Path(folder)


def drop_checkpoints(location: str, spare: Collection[str]) -> None:
    """Delete the checkpoints of a run's trials that a process left behind as it died.

    Args:
        location: the run's.
        spare: those that the journal names.

    Raises:
        UserError: the storage cannot be read or written.

    """
    kept = {"/".join(Path(path).parts[-2:]) for path in spare}  # the run's folder may have moved
    if not is_remote(location):
        for path in local_folder(location).glob(_CHECKPOINTS):
            if "/".join(path.parts[-2:]) not in kept:
                shutil.rmtree(path, ignore_errors=True)
        return
    remote = open_remote(location)
    try:
        found = {"/".join(Path(name).parts[:2]) for name in remote.files()}
        for name in found - kept:
            if fnmatch(name, _CHECKPOINTS):
                remote.delete_folder(name)
    except OSError as error:
        raise unreachable(location, error) from error


def for_tune(storage: str) -> dict[str, Any]:
    """Where Ray Tune writes, as arguments of its RunConfig."""
    if not is_remote(storage):
        return {"storage_path": str(local_folder(storage))}
    remote = open_remote(storage)
    return {"storage_path": remote.path, "storage_filesystem": remote.filesystem}
