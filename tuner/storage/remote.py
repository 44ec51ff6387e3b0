"""A folder of a file system that is not this machine's, as pyarrow or fsspec reach it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tuner.errors import UserError
from tuner.storage.places import refuse_secrets

Stamp = tuple[int, int]
"""Bytes of a file, and when it was changed, in nanoseconds since 1970; 0: not known."""

_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory")
"""Schemes under which what is written appears at once, and whole."""
_UNFINISHED = ".partial"
_REMEDY = (
    "give a folder, or a URI that pyarrow or fsspec knows, such as s3://bucket/prefix (others need "
    "a package: gcsfs, adlfs, s3fs)"
)


@contextmanager
def _failing_as_os_error() -> Iterator[None]:
    """What packages of fsspec raise of their own, as what the caller expects."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Remote:
    """A folder of a file system that is not this machine's. What fails there is an OSError."""

    location: str
    filesystem: Any
    """A ``pyarrow.fs.FileSystem``."""
    path: str
    """The folder's, for that."""

    @_failing_as_os_error()
    def files(self, below: str = "") -> dict[str, Stamp]:
        """Every file in it, or in a folder of it: relative path -> size and time of its change.

        None whose name would lead out of a folder it is written to, nor one half written.
        """
        from pyarrow.fs import FileSelector

        top = f"{self.path}/{below}".rstrip("/")
        selector = FileSelector(top, recursive=True, allow_not_found=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.is_file]
        stamps = {
            info.path[len(self.path) :].removeprefix("/"): (info.size, info.mtime_ns or 0)
            for info in found
        }
        return {
            name: stamp
            for name, stamp in stamps.items()
            if _stays_inside(name) and not name.endswith(_UNFINISHED)
        }

    @_failing_as_os_error()
    def folders(self) -> list[str]:
        """The names of its folders."""
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        names = [info.base_name for info in found if info.type == FileType.Directory]
        return [name for name in names if _stays_inside(name)]

    @_failing_as_os_error()
    def read(self, name: str) -> bytes | None:
        """A file's bytes; None: it is not there."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    @_failing_as_os_error()
    def write(self, name: str, content: bytes) -> None:
        """Write a file; it appears whole."""
        path = f"{self.path}/{name}"
        if urlsplit(self.location).scheme in _OBJECT_STORES:
            self._put(path, content)
            return
        beside = f"{path}.{uuid.uuid4().hex[:8]}{_UNFINISHED}"
        self._put(beside, content)
        try:
            self.filesystem.move(beside, path)
        except OSError:  # some put none in the place of another, as HDFS
            self.delete(name)
            self.filesystem.move(beside, path)

    @_failing_as_os_error()
    def delete(self, *names: str) -> None:
        """Delete files, where they are there."""
        for name in names:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(f"{self.path}/{name}")

    @_failing_as_os_error()
    def delete_folder(self, name: str) -> None:
        """Delete a folder of it, where it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(f"{self.path}/{name}")

    def _put(self, path: str, content: bytes) -> None:
        try:
            with self.filesystem.open_output_stream(path) as file:
                file.write(content)
        except FileNotFoundError:  # of its folder: an object store has none, others do
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            with self.filesystem.open_output_stream(path) as file:
                file.write(content)


def _stays_inside(name: str) -> bool:
    """Whether a file of that name, in a folder, is in that folder."""
    return not {"", ".", ".."} & set(name.split("/"))


def open_remote(location: str) -> Remote:
    """The remote folder that a URI names.

    Raises:
        UserError: no installed package knows such URIs, this one makes no sense to it, or has
            credentials in it.

    """
    refuse_secrets(location)
    import fsspec
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        filesystem, path = FileSystem.from_uri(location)
    except (ArrowInvalid, NotImplementedError) as error:
        try:
            inner, path = fsspec.core.url_to_fs(location)
        except (ImportError, ValueError) as unknown:
            reason = error if urlsplit(location).scheme == "s3" else unknown
            raise UserError(f"storage is {location!r}: {reason}; {_REMEDY}") from unknown
        filesystem = PyFileSystem(FSSpecHandler(inner))
    except OSError as error:
        raise unreachable(location, error) from error
    return Remote(location, filesystem, path.rstrip("/"))


def unreachable(location: str, error: Exception) -> UserError:
    """That the storage does not do what is asked of it, and what may be the cause."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return UserError(
        f"storage is {location!r}, which cannot be read and written here: {reason}; check that the "
        "bucket is there, the credentials (for s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "~/.aws or a role), the region and the endpoint (AWS_ENDPOINT_URL)"
    )
