"""Scalars and hyperparameters, read back from the event files with TensorBoard's own reader."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from search_spaces import load_space
from tuner.callbacks.tensorboard import TensorBoard
from tuner.search import SearchSettings, build_search
from tuner.search.journal import MemoryJournal
from tuner.search.search import Search
from tuner.search.simulation import simulate

SPACE = {
    "hyperparameters": {
        "lr": {"type": "float", "lower": 0.1, "upper": 1.0, "default": 0.5},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
    }
}


@pytest.fixture
def logged(tmp_path: Path) -> tuple[Path, Search]:
    """An ASHA search whose trials pause and go on, logged."""
    settings = SearchSettings(
        algorithm="asha", metric="loss", mode="min", num_trials=6, max_epochs=9
    )
    search = build_search(settings, load_space(SPACE), MemoryJournal())
    with TensorBoard(tmp_path) as tensorboard:
        search.subscribe(tensorboard)
        simulate(search, lambda config, epoch: config["lr"] / epoch, slots=2)
    return tmp_path, search


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_every_trial_has_its_curve(logged: tuple[Path, Search]) -> None:
    folder, search = logged
    for trial in search.trials:
        scalars = read(folder / f"trial_{trial.number:04d}").Scalars("loss")
        assert [event.step for event in scalars] == sorted(trial.results)
        values = [trial.results[event.step]["loss"] for event in scalars]
        assert [event.value for event in scalars] == pytest.approx(values)


def test_hyperparameters_are_written_once_with_the_scalars_as_metrics(
    logged: tuple[Path, Search],
) -> None:
    folder, search = logged
    trial = max(search.trials, key=lambda t: t.epoch)
    assert trial.epoch == 9, "it has paused and gone on, in files of its own"
    content = read(folder / f"trial_{trial.number:04d}").summary_metadata
    start = content["_hparams_/session_start_info"].plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info
    assert data.hparams["lr"].number_value == trial.config["lr"]
    assert data.hparams["optimizer"].string_value == trial.config["optimizer"]
    experiment = content["_hparams_/experiment"].plugin_data.content
    metrics = plugin_data_pb2.HParamsPluginData.FromString(experiment).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["loss"]
