"""What earlier runs have found, in the terms of a new search."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.history import History, read_history
from tuner.search import build_rule
from tuner.search.trial import Status, Trial


@dataclass
class Earlier:
    """Results to learn from, the best configurations to begin with, and what was left out."""

    runs: list[str]
    results: list[tuple[dict[str, Any], int, float | None]] = field(default_factory=list)
    """Configuration, epochs, loss; None: it failed."""
    first: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Hyperparameters that this space does not have."""
    outside: int = 0
    """Configurations that are none of this space."""


def read_earlier(experiment: Experiment, space: Any) -> Earlier | None:
    """Read the runs of ``search.warm_start``; None where there are none.

    Hyperparameters are matched by name. One that was a fixed setting then has that value; one that
    was not there at all has its default.

    Raises:
        UserError: one is no run folder, or its metric or mode is another.

    """
    search = experiment.search
    if not search.warm_start:
        return None
    earlier = Earlier(list(search.warm_start))
    levels = build_rule(search, search.num_trials).levels
    standing: list[tuple[float, float, dict[str, Any]]] = []
    for run in search.warm_start:
        history = _history(run)
        _check_metric(run, history, experiment)
        for trial, config in _configurations(history, space, earlier):
            told = list(_results(trial, levels, history.search.sign, history))
            earlier.results += [(config, epochs, loss) for epochs, loss in told]
            standing += [(-epochs, loss, config) for epochs, loss in told if loss is not None]
    earlier.first = _best(standing, min(max(3, search.num_trials // 10), _room(experiment)))
    return earlier


def _history(run: str) -> History:
    try:
        return read_history(run)
    except UserError as error:
        raise UserError(f"search.warm_start: {error}") from error


def _check_metric(run: str, history: History, experiment: Experiment) -> None:
    then, now = history.experiment.search, experiment.search
    for key in ("metric", "mode"):
        if getattr(then, key) != getattr(now, key):
            raise UserError(
                f"search.warm_start names {run}, whose {key} is {getattr(then, key)!r}, and here "
                f"it is {getattr(now, key)!r}; they must be the same: leave the run out, or "
                f"--set search.{key}={getattr(then, key)}"
            )


def _configurations(
    history: History, space: Any, earlier: Earlier
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """The trials whose configuration has a place in ``space``, and that configuration."""
    from search_spaces import SpaceError, complete

    fixed = {name: v for name, v in history.experiment.settings.items() if name in space}
    for trial in history.search.trials:
        unknown = [name for name in trial.config if name not in space]
        earlier.dropped = list(dict.fromkeys([*earlier.dropped, *unknown]))
        known = {name: value for name, value in trial.config.items() if name in space}
        try:
            yield trial, complete(space, fixed | known)
        except SpaceError:
            earlier.outside += 1


def _results(
    trial: Trial, levels: list[int], sign: float, history: History
) -> Iterator[tuple[int, float | None]]:
    """What the trial reached at each of ``levels``, and where it failed."""
    metric = history.experiment.search.metric
    for level in levels:
        if level in trial.results:
            yield level, sign * trial.results[level][metric]
    if trial.status is Status.FAILED:
        above = [level for level in levels if level > trial.epoch]
        if above:
            yield above[0], None


def _best(standing: list[tuple[float, float, dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    """The best configurations, those that came further before all others; none twice."""
    found: list[dict[str, Any]] = []
    for _, loss, config in sorted(standing, key=lambda s: s[:2]):
        if math.isfinite(loss) and config not in found:
            found.append(config)
    return found[:count]


def _room(experiment: Experiment) -> int:
    return max(0, experiment.search.num_trials - 1 - len(experiment.search.initial))
