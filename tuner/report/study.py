"""A run as an Optuna study: for its plots, and for optuna-dashboard."""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from search_spaces.schema import Categorical, Constant, Float, Integer, Ordinal, parse
from tuner.report.record import Record
from tuner.search.trial import Status, Trial

STATES = {
    Status.COMPLETED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
    Status.PAUSED: TrialState.RUNNING,  # it may go on yet
    Status.RUNNING: TrialState.RUNNING,
}


def add_study(record: Record, storage: BaseStorage, name: str) -> None:
    """Put a run into ``storage`` as it is: what was stopped early is pruned, what failed failed.

    A trial has its metric by epoch as intermediate values, and as value its best one.
    """
    history = record.history
    study = _create(record, storage, name)
    with quiet():
        study.set_metric_names([history.search.metric])
    study.set_user_attr("folder", str(history.folder))
    study.set_user_attr("state", str(history.state))
    study.set_user_attr("algorithm", history.experiment.search.algorithm)
    study.set_user_attr("sampler", history.experiment.search.picks_by)
    known = distributions(history.experiment.search_space)
    for trial in history.search.trials:
        study.add_trial(_freeze(trial, record, known))


def study_of(record: Record, trials: Iterable[Trial], epoch: int | None = None) -> optuna.Study:
    """A study for plots, where all of ``trials`` that have a result count as complete.

    Optuna plots none but complete trials, and a search that stops trials early has few of those.

    Args:
        record: of the run.
        trials: some of its trials.
        epoch: the value of a trial is its metric after so many epochs; None: its best one.

    """
    study = _create(record, optuna.storages.InMemoryStorage(), record.history.experiment.name)
    known = distributions(record.history.experiment.search_space)
    for trial in trials:
        result = trial.results.get(trial.best_epoch if epoch is None else epoch)
        if result:
            value = result[record.history.search.metric]
            study.add_trial(_freeze(trial, record, known, value))
    return study


def distributions(space: Any) -> dict[str, BaseDistribution]:
    """Optuna's distribution for each hyperparameter of a space, as ``experiment.yaml`` holds it.

    An order of values and a single value have none of their own: they become categorical.
    """
    known = parse(space).hyperparameters
    return {name: _distribution(hyperparameter) for name, hyperparameter in known.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Have Optuna keep its notes and warnings, which are for its callers, to itself for a while."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _create(record: Record, storage: BaseStorage, name: str) -> optuna.Study:
    mode = record.history.experiment.search.mode
    with quiet():
        return optuna.create_study(
            storage=storage, study_name=name, direction={"min": "minimize", "max": "maximize"}[mode]
        )


def _distribution(
    hyperparameter: Float | Integer | Categorical | Ordinal | Constant,
) -> BaseDistribution:
    match hyperparameter:
        case Float(lower=lower, upper=upper, log=log):
            return FloatDistribution(lower, upper, log=log)
        case Integer(lower=lower, upper=upper, log=log):
            return IntDistribution(lower, upper, log=log)
        case Categorical(choices=choices) | Ordinal(sequence=choices):
            return CategoricalDistribution(choices)
        case Constant(value=value):
            return CategoricalDistribution((value,))


def _freeze(
    trial: Trial,
    record: Record,
    known: dict[str, BaseDistribution],
    value: float | None = None,
) -> FrozenTrial:
    """A trial as Optuna has it; with ``value``, as if it were complete."""
    search = record.history.search
    state = TrialState.COMPLETE if value is not None else _state(trial)
    if value is None and state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.results:
        value = search.value(trial.best_loss)
    start, end = map(datetime.fromtimestamp, record.times[trial.number])
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=value,
        datetime_start=start,
        datetime_complete=end if state.is_finished() else None,
        params={name: _within(given, known[name]) for name, given in trial.config.items()},
        distributions={name: known[name] for name in trial.config},
        user_attrs=_attributes(trial),
        system_attrs={},
        intermediate_values={e: metrics[search.metric] for e, metrics in trial.results.items()},
    )


def _state(trial: Trial) -> TrialState:
    if trial.status is Status.COMPLETED and not trial.results:
        return TrialState.PRUNED  # it ended by itself before its first result
    return STATES[trial.status]


def _within(value: Any, distribution: BaseDistribution) -> Any:
    """The value, where rounding has taken it out of its range by a hair: the bound."""
    if isinstance(distribution, FloatDistribution):
        return min(max(value, distribution.low), distribution.high)
    return value


def _attributes(trial: Trial) -> dict[str, Any]:
    facts: dict[str, Any] = {"origin": trial.origin, "status": str(trial.status)}
    if trial.error:
        facts["error"] = f"{trial.error['type']}: {trial.error['message']}"
    facts |= {"epochs": trial.epoch, "bracket": trial.bracket}
    if trial.results:
        best = trial.results[trial.best_epoch]
        finite = {f"best/{name}": v for name, v in best.items() if math.isfinite(v)}
        facts |= {"best_epoch": trial.best_epoch, **finite}
    return facts
