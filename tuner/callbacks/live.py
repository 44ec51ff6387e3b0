"""A search in a terminal: a table that is drawn anew in place, never wider or higher than that."""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import mean
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainables.gpu_monitor import over_ranks
from tuner.callbacks.observer import Observer
from tuner.callbacks.outlook import Outlook, goal
from tuner.search.search import Event, Search
from tuner.search.trial import Status, Trial
from tuner.text import assignments, brief, describe, duration, figure, plain, roughly

ROWS = 10
"""Trials in the table, at most."""
FEW = 10
"""Trials of which it cannot be told yet what is the same in all."""
BEST_ROWS = 4
"""How many of them are the best but one, and so on."""
COLORS = {
    Status.RUNNING: "cyan",
    Status.PAUSED: "yellow",
    Status.COMPLETED: "green",
    Status.STOPPED: "dim",
    Status.FAILED: "red",
}


class LiveTable(Observer):
    """Shows a search as it goes.

    It is drawn by a thread of rich's, so it reads the search while that changes: only what it
    copies in one step may be iterated over.
    """

    def __init__(self, console: Console, search: Search, slots: int, outlook: Outlook) -> None:
        self._search, self._slots, self._outlook = search, slots, outlook
        self._failed: Trial | None = None
        """What failed last in this session."""
        self._error: Exception | None = None
        """What came of drawing: nothing is drawn any more."""
        self._live = Live(
            self,
            console=console,
            refresh_per_second=2,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.transient = self._search.finished  # the summary follows, else nothing does
        self._live.stop()

    def __call__(self, event: Event, search: Search) -> None:
        """Take the event into account; it shows when the table is drawn next."""
        if self._error:
            raise self._error
        self._outlook(event, search)
        if event["event"] == "fail":
            self._failed = search.trials[event["trial"]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw where the search stands; whoever prints above the table draws it, too."""
        if self._error:
            return
        try:
            yield from console.render(self._drawn(console.height, options.max_width), options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the run
            self._error = error

    def _drawn(self, height: int, width: int) -> Group:
        search = self._search
        trials = list(search.trials)
        varied = _varied(trials)
        above: list[RenderableType] = [
            _line(_states(trials, search.num_trials)),
            self._epochs(width),
            _line(self._pace()),
        ]
        if search.halted:
            halted = f"no more is started: {plain(search.halted)}"
            above.append(_line(Text.assemble(_label("ending"), halted)))
        if search.best:
            above += _best(search.best, search, varied, width)
        below = self._failure(trials)
        room = height - len(above) - len(below) - 3  # a blank, the heading, the cursor
        rows = _most_telling(search, trials, max(0, min(ROWS, room)))
        if rows:
            above += [Text(), _table(rows, search, varied)]
        return Group(*above, *below)

    def _epochs(self, width: int) -> RenderableType:
        done, planned = self._search.epochs_done, self._outlook.planned
        about = "" if self._outlook.exact else "about "
        text = Text.assemble(_label("epochs"), f"{done} of {about}{planned}  ")
        left = self._outlook.seconds_left
        after = Text(f"  about {roughly(left)} left" if left is not None else "")
        bar = min(40, width - text.cell_len - after.cell_len)
        if bar < 8:
            return _line(text + after)
        line = Table.grid()
        line.add_row(text, ProgressBar(total=max(1, planned), completed=done, width=bar), after)
        return line

    def _pace(self) -> Text:
        parts = [f"slots {len(self._search.active)}/{self._slots} busy"]
        for rate, what in (
            (self._outlook.epochs_per_minute, "epochs"),
            (self._outlook.trials_per_minute, "trials"),
        ):
            if rate is not None:
                parts.append(f"{rate:.3g} {what}/min")
        if (use := gpu_use(self._search.active)) is not None:
            parts.append(f"GPU {use:.0f} %")
        parts.append(f"{duration(self._search.elapsed)} so far")
        return Text.assemble(_label("pace"), " · ".join(parts))

    def _failure(self, trials: list[Trial]) -> list[RenderableType]:
        """The last failure, in a line; of an earlier session, which has no order, any one."""
        earlier = (t for t in reversed(trials) if t.status is Status.FAILED)
        failed = self._failed or next(earlier, None)
        if failed is None or failed.error is None:
            return []
        what = "last failure" if self._failed else "failed earlier"
        text = f"{what}: trial {failed.number}: {brief(failed.error)}"
        return [Text(), _line(Text(text, style="red"))]


def gpu_use(active: Iterable[Trial]) -> float | None:
    """Percent of the time that GPUs of these trials were busy in the latest epoch; None: none."""
    uses = [over_ranks(trial.results.get(trial.epoch, {})) for trial in active]
    known = [use for use in uses if use is not None]
    return mean(known) if known else None


def _label(name: str) -> tuple[str, str]:
    return f"{name:<8}", "dim"


def _line(text: Text) -> Text:
    """What ends where the terminal does."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _states(trials: list[Trial], of: int) -> Text:
    counts = Counter(trial.status for trial in trials)
    states = [(f"{counts[state]} {state}", COLORS[state]) for state in Status if counts[state]]
    text = Text.assemble(_label("trials"), f"{len(trials)} of {of}")
    for part in states:
        text.append(" · ").append(*part)
    return text


def _best(trial: Trial, search: Search, varied: set[str], width: int) -> list[RenderableType]:
    """The best trial with all its hyperparameters, on as many lines as they take."""
    heading = Text.assemble(
        _label("best"),
        (f"{search.metric} {figure(search.value(trial.best_loss))}", "bold"),
        f", trial {trial.number} at epoch {trial.best_epoch}",
    )
    config = assignments(_only(trial.config, varied))
    return [_line(heading), *(_line(Text(line)) for line in _packed(config, width))]


def _packed(words: list[str], width: int) -> list[str]:
    """Lines of whole words, indented like what follows a label."""
    indent = " " * 8
    lines = [indent]
    for word in words:
        if len(lines[-1]) + len(word) > width and lines[-1] != indent:
            lines.append(indent)
        lines[-1] += f"{word} "
    return [line.rstrip() for line in lines]


def _varied(trials: list[Trial]) -> set[str]:
    """Hyperparameters that are not the same in all trials; of few trials, all: they may yet be."""
    names = set[str]().union(*(trial.config for trial in trials))
    if len(trials) < FEW:
        return names
    first = trials[0].config
    return {n for n in names if any(t.config.get(n) != first.get(n) for t in trials)}


def _only(config: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name in names}


def _most_telling(search: Search, trials: list[Trial], room: int) -> list[Trial]:
    """The best but one, and so on, then what runs, the last started first."""
    ranked = sorted((t for t in trials if t.best_epoch), key=lambda t: (t.best_loss, t.number))
    best = [trial for trial in ranked if trial is not search.best][: min(BEST_ROWS, room)]
    shown = {search.best, *best}
    running = [trial for trial in reversed(search.active) if trial not in shown]
    return [*best, *running[: room - len(best)]]


def _table(rows: list[Trial], search: Search, varied: set[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for heading in ("trial", "state", "epoch", search.metric):
        right = heading != "state"
        table.add_column(
            heading,
            no_wrap=True,
            overflow="ellipsis",
            max_width=16,
            justify="right" if right else "left",
        )
    table.add_column("hyperparameters", no_wrap=True, overflow="ellipsis", ratio=1)
    for trial in rows:
        value = figure(search.value(trial.best_loss)) if trial.best_epoch else ""
        running = trial.status is Status.RUNNING
        epoch = f"{trial.epoch}/{goal(trial, search)}" if running else str(trial.epoch)
        state = Text(str(trial.status), style=COLORS[trial.status])
        config = describe(_only(trial.config, varied))
        table.add_row(str(trial.number), state, epoch, value, Text(config))
    return table
