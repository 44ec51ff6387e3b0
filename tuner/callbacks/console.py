"""Progress: a live table in a terminal, one line a change elsewhere."""

import time
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner.search.search import Event, Search
from tuner.search.trial import Status, Trial


class Display(StrEnum):
    """How a run is shown as it goes."""

    TABLE = "table"
    """A live table in a terminal, one line a change elsewhere."""
    QUIET = "quiet"
    """Warnings alone."""
    JSON = "json"
    """A JSON object a line, for programs."""


ROWS = 8
"""Trials that the table shows."""
SECONDS_BETWEEN_LINES = 2.0
"""Elsewhere than in a terminal, results come at most so often; starts and ends of trials always."""


class Progress:
    """Shows a search as it goes. Use it as a context, and subscribe it to the search."""

    def __init__(
        self, search: Search, terminal: TextIO, slots: int, display: Display = Display.TABLE
    ) -> None:
        self.console = Console(file=terminal, highlight=False, soft_wrap=not terminal.isatty())
        self._search, self._slots, self._display = search, slots, display
        self._live: Live | None = None
        self._last_line = 0.0
        self._warned: set[int] = set()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._table,
                console=self.console,
                refresh_per_second=2,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event, search: Search) -> None:
        """Say what changed, where no table does; warn of a leak wherever that is."""
        if "trial" not in event:
            return
        trial = search.trials[event["trial"]]
        if trial.number not in self._warned and (warning := growth_warning(trial)):
            self._warned.add(trial.number)
            self._print(warning)
        if self._live is not None:
            return
        line = _line(event, search)
        if event["event"] == "result" and event["verdict"] != "complete":
            if time.monotonic() - self._last_line < SECONDS_BETWEEN_LINES:
                return
            self._last_line = time.monotonic()
        if line:
            self._print(line)

    def _print(self, line: str) -> None:
        with suppress(OSError):  # the reader of a pipe may be gone; the run goes on
            self.console.print(Text(line))

    def _table(self) -> Group:
        search = self._search
        table = Table(box=None, pad_edge=False)
        for heading in ("trial", "state", "epoch", search.metric, "hyperparameters"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        for trial in _most_telling(search):
            table.add_row(*_row(trial, search))
        return Group(Text(headline(search, self._slots)), table)


def headline(search: Search, slots: int) -> str:
    """Where the search stands, in a line."""
    counts = dict.fromkeys(Status, 0)
    for trial in search.trials:
        counts[trial.status] += 1
    parts = [f"{len(search.trials)}/{search.num_trials} trials"]
    parts += [f"{count} {status}" for status, count in counts.items() if count]
    parts += [f"{search.epochs_done} epochs", f"slots {len(search.active)}/{slots}"]
    if search.best:
        parts.append(f"best {search.metric} {search.value(search.best.best_loss):.4f}")
    return " · ".join([*parts, duration(search.elapsed)])


def duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 05 s or 2 h 10 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def growth_warning(trial: Trial) -> str | None:
    """That a trial holds more and more memory, if it does."""
    for name, unit in (("tensor_growth", "tensors"), ("memory_growth_mb", "MB of memory")):
        if grown := max((m.get(name, 0) for m in trial.results.values()), default=0):
            return (
                f"warning: trial {trial.number} holds {grown:.0f} more {unit} after some epochs, "
                "more with each: does the Task keep losses or outputs as tensors, with their graph?"
            )
    return None


def describe(config: dict[str, Any]) -> str:
    """Hyperparameters in a line, numbers short."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in config.items()
    )


def _most_telling(search: Search) -> list[Trial]:
    """What runs, then the best of the rest."""
    active = search.active
    rest = [t for t in search.trials if t.results and t not in active]
    rest.sort(key=lambda t: t.best_loss)
    return [*active[:ROWS], *rest[: max(0, ROWS - len(active))]]


def _row(trial: Trial, search: Search) -> tuple[str, ...]:
    value = f"{search.value(trial.best_loss):.4f}" if trial.results else ""
    epoch = f"{trial.epoch}/{_heading(trial, search)}"
    return str(trial.number), str(trial.status), epoch, value, describe(trial.config)


def _heading(trial: Trial, search: Search) -> int:
    """The epoch at which the trial's slot is free again, or that it runs to for sure."""
    return search.max_epochs if trial.is_baseline else trial.target


def _line(event: Event, search: Search) -> str:
    trial = search.trials[event["trial"]]
    name = "final fit" if trial.origin == "final" else f"trial {trial.number}"
    match event["event"]:
        case "start":
            return f"{name} started, to epoch {_heading(trial, search)}: {describe(trial.config)}"
        case "result":
            done = "completed at epoch" if event["verdict"] == "complete" else "epoch"
            value = event["metrics"][search.metric]
            done = f"{name} {done} {event['epoch']}: {search.metric} {value:.4f}"
            return done if trial.origin == "final" else f"{done}   [{_best(search)}]"
        case "resume":
            return f"{name} goes on to epoch {trial.target}"
        case "restart":
            return f"{name} is taken up again from epoch {(trial.checkpoint or (0,))[0]}"
        case "interrupt":
            return f"{name} lost its process: {event['error']['message'].splitlines()[0]}"
        case "replace":
            return f"{name} gets a new process: {event['reason']}"
        case "fail":
            return f"{name} failed: {event['error']['message'].splitlines()[0]}"
    return ""


def _best(search: Search) -> str:
    if search.best is None:
        return "nothing yet"
    return f"best {search.value(search.best.best_loss):.4f}, trial {search.best.number}"
