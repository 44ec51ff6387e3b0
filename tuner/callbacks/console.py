"""Where a run speaks to its user: a live table, lines, or JSON; all that it prints goes through."""

import os
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any, TextIO

import rich.console
from rich.text import Text

from tuner.callbacks.growth import GrowthWarnings
from tuner.callbacks.json_lines import JsonLines, write_object
from tuner.callbacks.lines import Lines
from tuner.callbacks.live import LiveTable
from tuner.callbacks.observer import Observer
from tuner.callbacks.outlook import Outlook
from tuner.search.search import Search
from tuner.search.settings import SearchSettings


class Display(StrEnum):
    """How a run is shown as it goes."""

    TABLE = "table"
    """A live table in a terminal, one line a change elsewhere."""
    QUIET = "quiet"
    """Warnings alone."""
    JSON = "json"
    """A JSON object a line, for programs."""


class Console:
    """Prints what a run says, as ``display`` wants it; also from other threads.

    Args:
        terminal: where to; a real terminal is what gets colours and a live table.
        display: what.

    """

    def __init__(self, terminal: TextIO, display: Display = Display.TABLE) -> None:
        self._terminal, self._display = terminal, display
        real = terminal.isatty()
        self._rich = _Rich(file=terminal, force_terminal=real, highlight=False, soft_wrap=not real)

    def say(self, text: str, event: str = "note", **facts: Any) -> None:
        """Tell of something: people get ``text``, programs ``event`` and ``facts``, or the text."""
        if self._display is Display.JSON:
            self._write({"event": event, **(facts or {"message": text})})
        elif self._display is Display.TABLE:
            self._print(text)

    def warn(self, text: str) -> None:
        """Tell of something that everybody should know."""
        if self._display is Display.JSON:
            self._write({"event": "warning", "message": text})
        else:
            self._print(f"warning: {text}", style="yellow")

    def watch(
        self,
        search: Search,
        settings: SearchSettings,
        slots: int,
        *,
        phase: str = "search",
        time_budget: float | None = None,
    ) -> list[Observer]:
        """Observers that show a search as it goes."""
        observers: list[Observer] = [GrowthWarnings(self.warn)]
        if self._display is Display.JSON:
            return [*observers, JsonLines(self._write, phase)]
        if self._display is Display.QUIET:
            return observers
        outlook = Outlook(search, settings, slots, time_budget)
        if self._rich.is_terminal and not self._rich.is_dumb_terminal:
            return [*observers, LiveTable(self._rich, search, slots, outlook)]
        return [*observers, Lines(self._print, search, outlook)]

    def _print(self, text: str, style: str = "") -> None:
        with suppress(OSError):  # the reader of a pipe may be gone; the run goes on
            self._rich.print(Text(text, style=style))

    def _write(self, record: Mapping[str, Any]) -> None:
        write_object(record, self._terminal)


class _Rich(rich.console.Console):
    """Rich's console, as large as the terminal that it writes to, be that descriptor 1 or not."""

    @property
    def size(self) -> rich.console.ConsoleDimensions:
        try:
            width, height = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            return super().size
        if not width:  # a terminal that nobody has given a size
            return super().size
        return rich.console.ConsoleDimensions(width, height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def on_broken_pipe(self) -> None:
        """Say no more, and go on; rich would end the process."""
        self.quiet = True
