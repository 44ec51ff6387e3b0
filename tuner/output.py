"""Ray's output, and everything else's, into a file; the terminal is for the console alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


@contextmanager
def captured(log: Path) -> Iterator[TextIO]:
    """Send file descriptors 1 and 2 to ``log``; yields what standard output was.

    The descriptors are turned, not Python's objects, because most of Ray's noise comes from C++ and
    from other processes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield terminal
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # the log's disk may be full
                stream.flush()
        for target, source in zip((1, 2), saved, strict=True):
            os.dup2(source, target)
            os.close(source)
        with suppress(OSError):  # the reader of a pipe may be gone
            terminal.close()
