from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search_spaces import dump_space, load_space
from tests.conftest import EXAMPLES
from tests.tuner.report.records import BEGAN, event, record_of, result, start, two_slots
from tuner.report.record import Record
from tuner.report.study import add_study, distributions, study_of
from tuner.search import SEARCHES, SearchSettings, build_search
from tuner.search.journal import MemoryJournal
from tuner.search.simulation import simulate

EVERY_KIND = load_space(str(EXAMPLES / "every_kind.yaml"))


def study_in_full(record: Record) -> optuna.Study:
    storage = InMemoryStorage()
    add_study(record, storage, "run")
    return optuna.load_study(study_name="run", storage=storage)


def test_every_kind_of_hyperparameter_has_a_distribution() -> None:
    found = distributions(dump_space(EVERY_KIND))

    assert found == {
        "lr": FloatDistribution(1e-3, 0.3, log=True),
        "layers": IntDistribution(1, 3),
        "optimizer": CategoricalDistribution(("sgd", "adamw")),
        "size": CategoricalDistribution(("small", "large")),
        "kind": CategoricalDistribution(("toy",)),
        "momentum": FloatDistribution(0.0, 0.9),
    }
    log = {"n": {"type": "integer", "lower": 1, "upper": 64, "log": True}}
    assert distributions({"hyperparameters": log}) == {"n": IntDistribution(1, 64, log=True)}


def test_a_trial_is_what_it_came_to_with_its_metric_by_epoch() -> None:
    trials = study_in_full(record_of(two_slots())).trials

    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL,
    ]  # fmt: skip
    assert [trial.params for trial in trials] == [{"x": 0.25}, {"x": 0.5}, {"x": 0.9}]
    assert trials[0].value == 0.5  # its best, at epoch 2
    assert trials[0].intermediate_values == {1: 0.8, 2: 0.5, 3: 0.6}
    assert trials[2].intermediate_values == {}
    assert trials[2].user_attrs["error"] == "ValueError: x is 0.9"
    about = {"origin": "default", "status": "completed", "epochs": 3, "bracket": -1}
    assert trials[0].user_attrs == {**about, "best_epoch": 2, "best/loss": 0.5}
    assert trials[1].datetime_start == datetime.fromtimestamp(BEGAN)  # noqa: DTZ006 - as Optuna has it
    assert trials[1].duration == timedelta(seconds=40)


@pytest.mark.parametrize(
    ("last", "state", "value"),
    [
        (result(10, 0, 1, 0.8), TrialState.RUNNING, None),
        (result(10, 0, 1, 0.8, "pause"), TrialState.RUNNING, None),
        (result(10, 0, 1, 0.8, "stop"), TrialState.PRUNED, 0.8),
        (event(10, "complete", 0), TrialState.PRUNED, None),  # without a single result
    ],
)
def test_what_is_not_over_runs_and_what_was_stopped_is_pruned(
    last: dict[str, Any], state: TrialState, value: float | None
) -> None:
    record = record_of([event(0, "session", slots=1), start(0, 0, 0, 0.25), last])

    (trial,) = study_in_full(record).trials

    assert (trial.state, trial.value) == (state, value)
    assert (trial.datetime_complete is None) == (state is TrialState.RUNNING)


def test_the_mode_is_the_direction_and_the_metric_the_name() -> None:
    for mode, direction in (("min", "MINIMIZE"), ("max", "MAXIMIZE")):
        study = study_in_full(record_of(two_slots(), mode=mode))
        assert study.direction.name == direction
        assert study.metric_names == ["loss"]


def test_a_value_that_rounding_took_out_of_its_range_is_its_bound() -> None:
    record = record_of([event(0, "session", slots=1), start(0, 0, 0, 1.0 + 1e-14)])

    assert study_in_full(record).trials[0].params == {"x": 1.0}


@pytest.mark.parametrize("algorithm", SEARCHES)
def test_optuna_takes_every_trial_of_every_search(algorithm: str) -> None:
    settings = {"algorithm": algorithm, "num_trials": 20, "max_epochs": 9, "metric": "loss"}
    asked = SearchSettings.model_validate({**settings, "mode": "min"})
    journal = MemoryJournal()
    search = build_search(asked, EVERY_KIND, journal)
    search.open_session(slots=2)
    simulate(search, lambda config, epoch: config["lr"] / epoch, slots=2)

    study = study_in_full(record_of(journal.written, space=dump_space(EVERY_KIND), **settings))

    assert [trial.params for trial in study.trials] == [trial.config for trial in search.trials]
    assert any("momentum" not in trial.params for trial in study.trials)
    complete = [t.best_loss for t in search.trials if str(t.status) == "completed"]
    assert study.best_value == min(complete)


def test_for_plots_every_trial_with_a_result_counts_or_every_one_at_an_epoch() -> None:
    record = record_of([*two_slots()[:-2]])  # trial 1 is at epoch 2
    trials = record.history.search.trials

    assert [t.value for t in study_of(record, trials).trials] == [0.5, 0.4]
    assert [t.value for t in study_of(record, trials, epoch=2).trials] == [0.5, 0.4]
    assert [t.value for t in study_of(record, trials, epoch=3).trials] == [0.6]
