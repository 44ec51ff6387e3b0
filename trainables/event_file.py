"""An event file that is written at once: tensorboardX's own is written by a thread.

That thread ends on a full disk or quota, and whoever logs then waits for it for ever.
"""

import logging
import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.writer import FileWriter

logger = logging.getLogger(__name__)


class EventFile:
    """Stands in for tensorboardX's ``EventFileWriter``. The file is begun with the first event.

    Readers see each event at once. When the system refuses one, that is a warning, and it and all
    later ones are dropped.
    """

    def __init__(self, folder: str, suffix: str) -> None:
        self.failed = False
        self._folder, self._suffix = folder, suffix
        self._file: BinaryIO | None = None

    def get_logdir(self) -> str:
        """The file's folder."""
        return self._folder

    def add_event(self, event: Any) -> None:
        """Append an ``Event``."""
        if self.failed:
            return
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(_record(event))
            self._file.flush()
        except OSError as error:
            logger.warning("nothing more is logged to %s: %s", self._folder, error)
            self.failed = True
            with suppress(OSError):  # of what is still buffered
                self.close()

    def flush(self) -> None:
        """Do nothing: all is flushed."""

    def close(self) -> None:
        """Close the file, where there is one.

        Raises:
            OSError: the system says only now that something was not written.

        """
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> BinaryIO:
        folder = Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}{self._suffix}"
        file = (folder / name).open("ab")  # this second's may be there already
        file.write(_record(Event(wall_time=now, file_version="brain.Event:2")))
        return file


class _FileWriter(FileWriter):  # type: ignore[misc]
    """Adds step and time to what goes into an :class:`EventFile`."""

    def __init__(self, folder: str, suffix: str) -> None:
        # not the parent's: it starts the thread, and is kept until the process ends
        self.event_writer = EventFile(folder, suffix)
        self._default_metadata: dict[str, Any] = {}


class EventWriter(SummaryWriter):  # type: ignore[misc]
    """A ``SummaryWriter`` of :class:`EventFile`.

    Args:
        folder: the file's.
        suffix: ends the file's name.

    """

    file_writer: Any
    all_writers: Any

    def __init__(self, folder: Path, suffix: str) -> None:
        super().__init__(str(folder), filename_suffix=suffix)

    @property
    def failed(self) -> bool:
        """Whether the system has refused an event."""
        return bool(self.file_writer and self.file_writer.event_writer.failed)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Any, *args: Any, **more: Any) -> None:
        """Several scalars for one plot, each in a file of its own."""
        self._get_file_writer()
        for tag in tag_scalar_dict:
            folder = os.path.join(self.logdir, main_tag, tag)  # noqa: PTH118 - as the parent names it
            self.all_writers.setdefault(folder, _FileWriter(folder, self._filename_suffix))
        super().add_scalars(main_tag, tag_scalar_dict, *args, **more)

    def _get_file_writer(self) -> Any:
        """What all of the parent's methods write to; made anew after a close."""
        if self.file_writer is None:
            self.file_writer = _FileWriter(self.logdir, self._filename_suffix)
            self.all_writers = {self.logdir: self.file_writer}
        return self.file_writer


def _record(event: Any) -> bytes:
    """An ``Event`` as a TFRecord: length, its checksum, data, its checksum; little-endian."""
    data: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]
