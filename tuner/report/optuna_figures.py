"""The figures that Optuna draws, over the study that a run makes."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import optuna
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from tuner.report.own_figures import NotDrawnError, spread, telling_range
from tuner.report.record import Record
from tuner.report.study import quiet, study_of
from tuner.search.trial import Trial

MOST_LINES = 250
"""Of parallel coordinates: each is a trace of its own."""
MOST_POINTS = 1000
"""Of slices, and trials that importances are computed from."""
SCALE = [[0, "rgb(244, 114, 43)"], [1, "rgb(141, 153, 174)"]]
"""From the best value to the worst; on light and on dark, the best stands out."""
LATER = [[0, "rgb(195, 207, 223)"], [1, "rgb(31, 111, 235)"]]
"""From the first trial to the last."""
_ENOUGH = 20
"""Trials that should have reached the epoch at which importances compare them."""


def parallel_coordinates(record: Record) -> go.Figure:
    """A line a trial through its hyperparameters and its best value.

    Raises:
        NotDrawnError: there are no two configurations that differ.

    """
    trials = spread(record.history.search.trials, MOST_LINES)
    names = varied(trials)
    with quiet():
        figure = optuna.visualization.plot_parallel_coordinate(
            study_of(record, trials), params=names, target_name=record.history.search.metric
        )
    *lines, legend = figure.data
    best = 0 if record.history.search.sign > 0 else 1
    for line in lines:  # its first point is its value, from 0 to 1
        line.line.color = sample_colorscale(SCALE, [abs(best - line.y[0])])[0]
    legend.marker.update(colorscale=SCALE, reversescale=bool(best))
    figure.update_annotations(font={"color": None, "size": 11})
    return _plain(figure)


def slices(record: Record) -> list[go.Figure]:
    """The best value of each trial against a hyperparameter, a figure each.

    Raises:
        NotDrawnError: there are no two configurations that differ.

    """
    search = record.history.search
    trials = spread(search.trials, MOST_POINTS)
    names = varied(trials)
    figures = []
    with quiet():
        study = study_of(record, trials)
        for name in names:
            figure = optuna.visualization.plot_slice(
                study, params=[name], target_name=escape(search.metric)
            )
            figure.update_traces(marker={"showscale": False, "colorscale": LATER})
            figure.update_xaxes(title=escape(name))
            figure.update_yaxes(range=telling_range(record))
            figures.append(_plain(figure))
    return figures


def importances(record: Record) -> tuple[go.Figure, int, int]:
    """How much of the metric's spread each hyperparameter explains; the epoch, and the trials.

    Trials are compared at one epoch, or who was stopped early would look worse for that alone: the
    last that a quarter of them have reached, and twenty, or else the first.

    Raises:
        NotDrawnError: fewer than two trials can be compared, or they do not differ.

    """
    trials = spread(record.history.search.trials, MOST_POINTS)
    names = varied(trials)
    epoch = comparable_epoch(trials)
    compared = [trial for trial in trials if epoch in trial.results]
    metric = record.history.search.metric
    values = {trial.results[epoch][metric] for trial in compared}
    if len(compared) < 2 or len(values) < 2:
        raise NotDrawnError(
            f"Importances need two trials with different results at one epoch; at epoch {epoch} "
            f"there are {len(compared)} trials and {len(values)} values."
        )
    with quiet():
        figure = optuna.visualization.plot_param_importances(
            study_of(record, compared, epoch),
            params=[name for name in names if any(name in trial.config for trial in compared)],
            target_name=escape(metric),
        )
    figure.update_xaxes(title="importance; they add up to 1", range=[0, 1.1])
    figure.update_yaxes(title=None)
    return _plain(figure), epoch, len(compared)


def comparable_epoch(trials: Sequence[Trial]) -> int:
    """The last epoch that a quarter of ``trials``, and twenty, have reached; or else the first."""
    enough = max(_ENOUGH, len(trials) / 4)
    epochs = sorted({epoch for trial in trials for epoch in trial.results})
    reached = {epoch: sum(epoch in trial.results for trial in trials) for epoch in epochs}
    return max((e for e, count in reached.items() if count >= enough), default=epochs[0])


def varied(trials: Sequence[Trial]) -> list[str]:
    """The hyperparameters that have more than one value among ``trials``, or are absent in some.

    Raises:
        NotDrawnError: there are none.

    """
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    found = [
        name
        for name in names
        if any(one.config.get(name) != other.config.get(name) for one, other in pairwise(trials))
    ]
    if not found:
        raise NotDrawnError(
            "No two configurations with a result differ yet."
            if trials
            else "No trial has a result yet."
        )
    return found


def _plain(figure: go.Figure) -> go.Figure:
    """Without the title and the colours that Optuna gives a figure; the page has its own."""
    figure.update_layout(title=None, plot_bgcolor=None)
    return figure
