"""The page that compares several runs."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from tuner.errors import UserError
from tuner.report.own_figures import NotDrawnError, best_so_far
from tuner.report.page import Section, drawn, paragraph, plot, table, write_page
from tuner.report.record import Record
from tuner.text import describe, duration

PALETTE = (
    "#f4722b", "#3a86ff", "#2a9d8f", "#b07aa1", "#d99a2b", "#e5484d", "#7c5cff", "#8d99ae",
)  # fmt: skip
"""A colour a run, from the beginning again after the last."""
_UNTOLD = ("name", "storage", "search_space")
"""Keys of an experiment that are not told apart in the table: a space is a page of its own."""


def write_comparison(records: Sequence[Record], path: Path) -> None:
    """Write a page that compares runs of one metric.

    Raises:
        UserError: their metrics differ, or the file cannot be written.

    """
    names = name_runs(records)
    metric, mode = _metric(records, names)
    title = f"{len(records)} runs compared"
    write_page(path, title, f"{metric} ({mode})", list(_sections(records, names)))


def name_runs(records: Sequence[Record]) -> list[str]:
    """The runs' names; the folders of those whose name another has, too."""
    names = [record.history.experiment.name for record in records]
    folders = [str(record.history.folder) for record in records]
    return [
        folder if names.count(name) > 1 else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _metric(records: Sequence[Record], names: Sequence[str]) -> tuple[str, str]:
    """The metric and its mode, which all have in common."""
    searches = [record.history.experiment.search for record in records]
    asked = [(search.metric, search.mode) for search in searches]
    if len(set(asked)) > 1:
        told = ", ".join(
            f"{name} has {metric} ({mode})"
            for name, (metric, mode) in zip(names, asked, strict=True)
        )
        raise UserError(
            f"search.metric and search.mode differ: {told}; a comparison needs one metric, so "
            "give runs that share it"
        )
    return asked[0]


def _sections(records: Sequence[Record], names: Sequence[str]) -> Iterator[Section]:
    yield Section("Runs", _runs(records, names))
    yield Section("Best by epochs", drawn(lambda: _curves(records, names, by="epochs")))
    yield Section("Best by time", drawn(lambda: _curves(records, names, by="seconds")))
    yield Section("What differs", drawn(lambda: _differences(records, names)))


def _runs(records: Sequence[Record], names: Sequence[str]) -> str:
    metric = records[0].history.search.metric
    headings = ["run", "state", "search", "trials", "epochs", "time", "busy", metric, "trial"]
    rows = [(name, *_row(record)) for name, record in zip(names, records, strict=True)]
    return table([*headings, "best configuration"], rows, kind="wide")


def _row(record: Record) -> tuple[object, ...]:
    search, settings = record.history.search, record.history.experiment.search
    busy = "" if record.busy is None else f"{record.busy:.0%}"
    best: tuple[object, ...] = ("", "", "")
    if search.best:
        value = f"{search.value(search.best.best_loss):.5g}"
        best = (value, search.best.number, describe(search.best.config))
    return (
        record.history.state,
        f"{settings.algorithm}, {settings.picks_by}",
        len(search.trials),
        search.epochs_done,
        duration(search.seconds),
        busy,
        *best,
    )


def _curves(records: Sequence[Record], names: Sequence[str], by: str) -> str:
    figure = go.Figure()
    for index, (record, name) in enumerate(zip(records, names, strict=True)):
        points = [(getattr(result, by), result.best) for result in record.results]
        if points:
            figure.add_trace(best_so_far(points, name, PALETTE[index % len(PALETTE)]))
    if not figure.data:
        raise NotDrawnError("No run has a result yet.")
    unit = {"epochs": "epochs spent, over all trials", "seconds": "seconds of the run"}
    figure.update_xaxes(title=unit[by], rangemode="tozero")
    figure.update_yaxes(title=f"best {escape(records[0].history.search.metric)} so far")
    figure.update_layout(showlegend=True)
    caption = {
        "epochs": "What each search has made of the epochs it spent, however long they took.",
        "seconds": "The time between sessions is left out. It depends on machine and slots, too.",
    }
    return plot(figure, caption[by])


def _differences(records: Sequence[Record], names: Sequence[str]) -> str:
    """What the experiments say differently, by dotted key."""
    flat = [dict(_flatten(record.history.experiment.model_dump(mode="json"))) for record in records]
    keys = dict.fromkeys(key for values in flat for key in values)
    told = [key for key in keys if key.partition(".")[0] not in _UNTOLD]
    rows = [
        (key, *(values.get(key, "") for values in flat))
        for key in told
        if any(values.get(key) != flat[0].get(key) for values in flat)
    ]
    spaces = [record.history.experiment.search_space for record in records]
    note = ""
    if any(space != spaces[0] for space in spaces):
        note = paragraph("Their search spaces differ: see search_space in each experiment.yaml.")
    if not rows:
        return note + paragraph("Nothing: their experiments are the same.")
    return note + table(["key", *names], rows)


def _flatten(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
