"""The figures that are our own: what Optuna has no plot of, as it knows no epochs and no slots."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from tuner.report.record import Record, Stint
from tuner.search.search import Search
from tuner.search.trial import Status, Trial
from tuner.text import describe, duration

MOST_CURVES = 500
"""More than that, and a browser grows slow; what is left out is spread over good and bad."""
MOST_BORDERS = 1000
"""Bars of the slots that have one; of more, a border would hide the bar."""
COLOURS = {
    "completed": "#2a9d8f",
    "stopped": "#8d99ae",
    "paused": "#d99a2b",
    "running": "#3a86ff",
    "failed": "#e5484d",
    "lost": "#b07aa1",
}
"""By status of a trial, or by how it left its slot; told apart on light and on dark."""
BEST, BASELINE = "#f4722b", "#7c5cff"
ORIGINS = {
    "default": BASELINE,
    "given": "#d99a2b",
    "earlier": "#b07aa1",
    "grid": "#3a86ff",
    "random": "#8d99ae",
    "model": "#2a9d8f",
}
"""By who proposed a configuration."""
_BREAK = None
"""In a trace's coordinates: the line ends here and the next one begins."""


class NotDrawnError(Exception):
    """There is nothing to draw; the message says why, in a line for the page."""


def spread(trials: Iterable[Trial], most: int) -> list[Trial]:
    """At most so many of the trials that have a result, by number: the best, and evenly down."""
    ranked = sorted((t for t in trials if t.results), key=lambda t: (t.best_loss, t.number))
    step = -(-len(ranked) // most) or 1
    return sorted(ranked[::step], key=lambda trial: trial.number)


def learning_curves(record: Record) -> go.Figure:
    """The metric by epoch, a line a trial.

    Raises:
        NotDrawnError: no trial has a result.

    """
    search = record.history.search
    shown = spread(search.trials, MOST_CURVES)
    if not shown:
        raise NotDrawnError("No trial has a result yet.")
    baseline = next((trial for trial in search.trials if trial.is_baseline and trial.results), None)
    special = [trial for trial in (baseline, search.best) if trial is not None]
    groups = {
        status: [t for t in shown if t.status is status and t not in special] for status in Status
    }
    figure = go.Figure()
    for status, trials in groups.items():
        if trials:
            name = f"{status} ({len(trials)})"
            figure.add_trace(_curves(trials, search, name, color=COLOURS[status], width=1.2))
    if baseline is not None and baseline is not search.best:
        figure.add_trace(
            _curves(
                [baseline], search, "default configuration", color=BASELINE, width=2.5, dash="dash"
            )
        )
    if search.best is not None:
        name = f"best: trial {search.best.number}"
        figure.add_trace(_curves([search.best], search, name, color=BEST, width=3.5))
    _mark(figure, record, shown)
    figure.update_xaxes(title="epoch", dtick=1 if search.max_epochs <= 20 else None)
    figure.update_yaxes(title=escape(search.metric), range=telling_range(record))
    return figure


def history(record: Record) -> go.Figure:
    """Each result, and the best so far, against the epochs spent on all trials.

    Raises:
        NotDrawnError: no trial has a result.

    """
    search, results = record.history.search, record.results
    if not results:
        raise NotDrawnError("No trial has a result yet.")
    figure = go.Figure()
    dots = go.Scattergl if len(results) > 5000 else go.Scatter
    for origin, colour in ORIGINS.items():
        own = [result for result in results if search.trials[result.trial].origin == origin]
        if own:
            figure.add_trace(
                dots(
                    x=[result.epochs for result in own],
                    y=[result.value for result in own],
                    customdata=[(result.trial, result.epoch) for result in own],
                    mode="markers",
                    marker={"color": colour, "size": 6, "opacity": 0.7},
                    name=origin,
                    hovertemplate="trial %{customdata[0]}, epoch %{customdata[1]}: %{y:.5g}"
                    "<br>after %{x} epochs<extra></extra>",
                )
            )
    figure.add_trace(best_so_far([(r.epochs, r.best) for r in results], "best so far", BEST))
    baseline = next((t for t in search.trials if t.is_baseline and t.results), None)
    if baseline:
        level = search.value(baseline.best_loss)
        figure.add_hline(level, line={"color": BASELINE, "dash": "dash", "width": 1.5})
        figure.add_trace(_legend_entry("default's best", BASELINE))
    figure.update_xaxes(title="epochs spent, over all trials")
    figure.update_yaxes(title=escape(search.metric), range=telling_range(record))
    return figure


def best_so_far(points: Sequence[tuple[float, float]], name: str, colour: str) -> go.Scatter:
    """Steps through the ``points`` at which the best value changes, up to the last point."""
    steps = [p for i, p in enumerate(points) if i == 0 or p[1] != points[i - 1][1]]
    return go.Scatter(
        x=[x for x, _ in [*steps, points[-1]]],
        y=[y for _, y in [*steps, points[-1]]],
        mode="lines",
        line={"color": colour, "width": 2.5, "shape": "hv"},
        name=escape(name),
        hovertemplate="%{y:.5g} after %{x:.5g}<extra>" + escape(name) + "</extra>",
    )


def slots(record: Record) -> go.Figure:
    """Which trial held which slot when, in minutes of the run, or seconds of a short one.

    Raises:
        NotDrawnError: no trial was ever put on a slot.

    """
    if not record.stints:
        raise NotDrawnError("No trial has held a slot yet.")
    end = record.sessions[-1].end if record.sessions else record.stints[-1].end
    unit, seconds = ("minutes", 60) if end > 300 else ("seconds", 1)
    figure = go.Figure(_bars(record.stints, seconds))
    for number, session in enumerate(record.sessions[1:], start=2):
        figure.add_vline(session.start / seconds, line={"dash": "dot", "color": "#888"})
        figure.add_annotation(
            x=session.start / seconds, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=f"session {number}", font={"size": 11},
        )  # fmt: skip
    used = max(stint.slot for stint in record.stints) + 1
    names = [f"slot {index}" for index in range(max([used, *(s.slots for s in record.sessions)]))]
    figure.update_layout(barmode="overlay", bargap=0.15, uniformtext={"minsize": 8, "mode": "hide"})
    figure.update_xaxes(title=f"{unit} of the run", range=[0, end / seconds])
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], title=None)
    return figure


def _bars(stints: Sequence[Stint], unit: float) -> list[go.Bar]:
    """A trace for each way to leave a slot, with a bar a stint, in units of so many seconds."""
    border = 0.5 if len(stints) < MOST_BORDERS else 0
    by_outcome = defaultdict(list)
    for stint in stints:
        by_outcome[stint.outcome].append(stint)
    return [
        go.Bar(
            x=[(stint.end - stint.start) / unit for stint in own],
            base=[stint.start / unit for stint in own],
            y=[f"slot {stint.slot}" for stint in own],
            orientation="h",
            name=f"{outcome} ({len(own)})",
            marker={"color": colour, "line": {"width": border, "color": "#888"}},
            text=[str(stint.trial) for stint in own],
            textposition="inside",
            insidetextanchor="middle",
            constraintext="inside",
            hovertext=[
                f"trial {stint.trial}: {outcome} after {duration(stint.end - stint.start)}"
                for stint in own
            ],
            hoverinfo="text",
        )
        for outcome, colour in COLOURS.items()
        if (own := by_outcome[outcome])
    ]


def telling_range(record: Record) -> list[float] | None:
    """The range of values to open a figure with; None: all of it.

    Where a few results are far worse than the rest, those are left outside: they would press the
    others into a line.
    """
    losses = sorted(record.history.search.sign * result.value for result in record.results)
    if not losses:
        return None
    best, most = losses[0], losses[int(0.95 * (len(losses) - 1))]
    if losses[-1] - best <= 4 * (most - best) or most == best:
        return None
    margin = 0.08 * (most - best)
    ends = (record.history.search.value(loss) for loss in (best - margin, most + margin))
    return sorted(ends)


def _wrapped(config: dict[str, Any]) -> str:
    """Hyperparameters for the box that follows the mouse, a line each."""
    return "<br>".join(escape(describe({name: value})) for name, value in config.items())


def _curves(trials: Sequence[Trial], search: Search, name: str, **line: Any) -> go.Scatter:
    """Lines of several trials as one trace, of which a figure can have few."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        about = f"trial {trial.number} ({trial.status}, by {trial.origin})"
        config = _wrapped(trial.config)
        for epoch, metrics in trial.results.items():
            value = metrics[search.metric]
            x.append(epoch)
            y.append(value)
            text.append(f"{about}<br>epoch {epoch}: <b>{value:.5g}</b><br>{config}")
        x.append(_BREAK)
        y.append(_BREAK)
        text.append("")
    return go.Scatter(
        x=x,
        y=y,
        hovertext=text,
        hoverinfo="text",
        mode="lines+markers",
        line=line,
        marker={"size": line["width"] + 3},
        opacity=0.6 if line["width"] < 2 else 1,
        name=name,
    )


def _mark(figure: go.Figure, record: Record, shown: Sequence[Trial]) -> None:
    """Mark where trials were paused, promoted, and where they failed."""
    metric, by_number = record.history.search.metric, {trial.number: trial for trial in shown}
    failed = [(t.number, t.epoch) for t in shown if t.status is Status.FAILED]
    for name, symbol, colour, size, points in (
        ("paused", "line-ew-open", COLOURS["paused"], 11, record.pauses),
        ("promoted", "triangle-up-open", COLOURS["completed"], 10, record.promotions),
        ("failed here", "x", COLOURS["failed"], 8, failed),
    ):
        own = [(number, epoch) for number, epoch in points if number in by_number and epoch]
        if own:
            figure.add_trace(
                go.Scatter(
                    x=[epoch for _, epoch in own],
                    y=[by_number[number].results[epoch][metric] for number, epoch in own],
                    mode="markers",
                    marker={
                        "symbol": symbol,
                        "color": colour,
                        "size": size,
                        "line": {"width": 0 if symbol == "x" else 2},
                    },
                    name=f"{name} ({len(own)})",
                    hoverinfo="skip",
                )
            )


def _legend_entry(name: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[None], y=[None], mode="lines", line={"color": colour, "dash": "dash"}, name=name
    )
