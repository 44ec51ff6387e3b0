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


def log_search(folder: Path, skip: list[str]) -> Search:
    """An ASHA search whose trials pause and go on, logged."""
    settings = SearchSettings(
        algorithm="asha", metric="loss", mode="min", num_trials=6, max_epochs=9
    )
    search = build_search(settings, load_space(SPACE), MemoryJournal())
    with TensorBoard(folder, skip) as tensorboard:
        search.subscribe(tensorboard)
        simulate(search, lambda config, epoch: config["lr"] / epoch, slots=2)
    return search


@pytest.fixture
def logged(tmp_path: Path) -> tuple[Path, Search]:
    return tmp_path, log_search(tmp_path, [])


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


def test_hyperparameters_are_written_once_with_the_first_report(
    logged: tuple[Path, Search],
) -> None:
    folder, search = logged
    trial = next(t for t in search.trials if not t.is_baseline and t.epoch == 9)
    files = sorted((folder / f"trial_{trial.number:04d}").iterdir(), key=lambda f: f.suffix)
    assert len(files) == 3, "it has paused and gone on, in files of its own"
    metadata = [read(file).summary_metadata for file in files]
    assert [list(of_file) for of_file in metadata] == [
        ["_hparams_/session_start_info"],
        *[[] for _ in files[1:]],
    ]
    start = metadata[0]["_hparams_/session_start_info"].plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info
    assert data.hparams["lr"].number_value == trial.config["lr"]
    assert data.hparams["optimizer"].string_value == trial.config["optimizer"]


def test_a_trial_that_goes_on_draws_one_line(logged: tuple[Path, Search]) -> None:
    """All files of a folder are one run, and no epoch is in two of them."""
    folder, search = logged
    for trial in search.trials:
        files = (folder / f"trial_{trial.number:04d}").iterdir()
        steps = [event.step for file in files for event in read(file).Scalars("loss")]
        assert len(steps) == len(set(steps)) == trial.epoch


@pytest.mark.parametrize(
    ("skip", "scalars", "hparams"),
    [(["scalars"], [], 1), (["hparams"], ["loss"], 0), (["images"], ["loss"], 1)],
)
def test_what_is_skipped_is_not_written(
    skip: list[str], scalars: list[str], hparams: int, tmp_path: Path
) -> None:
    log_search(tmp_path, skip)
    content = read(tmp_path / "trial_0000")
    assert content.Tags()["scalars"] == scalars
    assert len(content.summary_metadata) == hparams


def test_where_all_is_skipped_there_is_no_file(tmp_path: Path) -> None:
    log_search(tmp_path, ["scalars", "hparams"])
    assert not list(tmp_path.iterdir())
