"""A folder of a file system that is not this machine's, as pyarrow or fsspec reach it."""

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tuner.errors import UserError

Stamp = tuple[int, int]
"""Bytes of a file, and when it was changed, in nanoseconds since 1970; 0: not known."""

_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory")
"""Schemes under which what is written appears at once, and whole."""
_REMEDY = (
    "give a folder, or a URI that pyarrow or fsspec knows, such as s3://bucket/prefix (others need "
    "a package: gcsfs, adlfs, s3fs)"
)


@dataclass(frozen=True)
class Remote:
    """A folder of a file system that is not this machine's. What fails there is an OSError."""

    location: str
    filesystem: Any
    """A ``pyarrow.fs.FileSystem``."""
    path: str
    """The folder's, for that."""

    def files(self, below: str = "") -> dict[str, Stamp]:
        """Every file in it, or in a folder of it: relative path -> size and time of its change."""
        from pyarrow.fs import FileSelector

        top = f"{self.path}/{below}".rstrip("/")
        selector = FileSelector(top, recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return {
            info.path[len(self.path) :].lstrip("/"): (info.size, info.mtime_ns or 0)
            for info in found
            if info.is_file
        }

    def folders(self) -> list[str]:
        """The names of its folders."""
        from pyarrow.fs import FileSelector, FileType

        found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return [info.base_name for info in found if info.type == FileType.Directory]

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None: it is not there."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file; it appears whole."""
        path = f"{self.path}/{name}"
        if urlsplit(self.location).scheme in _OBJECT_STORES:
            self._put(path, content)
            return
        beside = f"{path}.{uuid.uuid4().hex[:8]}.partial"
        self._put(beside, content)
        self.filesystem.move(beside, path)

    def delete(self, *names: str) -> None:
        """Delete files, where they are there."""
        for name in names:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(f"{self.path}/{name}")

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


def open_remote(location: str) -> Remote:
    """The remote folder that a URI names.

    Raises:
        UserError: no installed package knows such URIs, or this one makes no sense to it.

    """
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
