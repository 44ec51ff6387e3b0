"""A run for programs: one JSON object a line.

Each has ``event``, its kind, and ``time``, seconds since 1970. A run begins with ``run`` and ends
with ``summary``, or with ``error``, if the user can mend what was wrong; in between:

- ``cluster``: ``dashboard`` (an address, or null) and ``slots``, trials that run at once;
- what happens to the search's trials: the fields in ``EVENTS``, and ``phase``: ``search``, or
  ``final`` for the fit that may follow, whose one trial is its own trial 0;
- ``warning`` and ``note``: ``message``, for people.

Numbers that are no numbers (NaN, infinity) are null.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

from tuner.callbacks.observer import Observer
from tuner.search.search import Event, Search

EVENTS: dict[str, tuple[str, ...]] = {
    "start": ("trial", "config", "origin", "target"),
    "result": ("trial", "epoch", "metrics", "verdict"),
    "checkpoint": ("trial", "epoch", "path"),
    "resume": ("trial", "target"),
    "complete": ("trial",),
    "stop": ("trial",),
    "close": ("trial",),
    "fail": ("trial", "error"),
    "interrupt": ("trial", "error"),
    "damaged": ("trial", "epoch", "error"),
    "restart": ("trial",),
    "replace": ("trial", "reason"),
    "withdraw": ("trial", "reason"),
    "halt": ("reason",),
    "overfull": ("bytes", "limit"),
}
"""Kind -> its fields. A trial starts, ``target`` is the epoch it is to reach; has a result, with a
``verdict`` of pause, advance, complete, stop or null; has that epoch saved; goes on after a pause;
ends without another result; is stopped; leaves its slot; fails; loses its process, or a checkpoint,
and is taken up again; gets a new process; waits for another slot. The whole search is cut short;
needs more bytes for checkpoints than their limit."""


class JsonLines(Observer):
    """Passes the events of a search on."""

    def __init__(self, write: Callable[[Mapping[str, Any]], None], phase: str) -> None:
        self._write, self._phase = write, phase

    def __call__(self, event: Event, search: Search) -> None:
        """Write what ``EVENTS`` has of an event."""
        del search
        if fields := EVENTS.get(event["event"]):
            told = {name: event[name] for name in ("event", "time", *fields)}
            self._write({**told, "phase": self._phase})


def write_object(record: Mapping[str, Any], file: TextIO) -> None:
    """Write a JSON object as a line, with the time where it has none."""
    record = {"event": record["event"], "time": round(time.time(), 3), **record}
    with suppress(OSError):  # the reader of a pipe may be gone; the run goes on
        file.write(json.dumps(_finite(record), separators=(",", ":"), allow_nan=False) + "\n")
        file.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
