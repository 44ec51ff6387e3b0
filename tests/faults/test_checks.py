"""The checks that look at a run after its faults find a run that is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces import load_space
from tests.faults.checks import check_run, happened, traces
from tests.faults.schedule import TRIALS, Variant
from trainables.checkpoint import save_state
from tuner.experiment import make_experiment
from tuner.results import write_experiment, write_trials
from tuner.search import build_search
from tuner.search.journal import Journal
from tuner.search.simulation import simulate
from tuner.search.trial import Trial

VARIANT = Variant("random", 1, 1)
Lines = list[dict[str, Any]]


def total(config: dict[str, Any]) -> torch.Tensor:
    """What the state of a trial holds."""
    return torch.full((1000,), config["x"])


def loss(config: dict[str, Any], epoch: int) -> float:
    return float((total(config).mean().item() - 1) ** 2 + 0.3 / epoch)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as it should be, of a search that was simulated."""
    values: dict[str, Any] = {
        "name": "faulty",
        "trainable": "faulty_task:Faulty",
        "search_space": {"hyperparameters": {"x": {"type": "float", "lower": 0.0, "upper": 2.0}}},
        "search": {
            "algorithm": VARIANT.algorithm, "metric": "loss", "mode": "min",
            "num_trials": TRIALS, "max_epochs": VARIANT.max_epochs,
        },
        "storage": str(tmp_path_factory.mktemp("runs")),
    }  # fmt: skip
    experiment = make_experiment(values, {})
    space, run = load_space(values["search_space"]), experiment.folder
    run.mkdir()
    (run / "journal.jsonl").touch()
    with Journal(run / "journal.jsonl") as journal:
        search = build_search(experiment.search, space, journal)
        search.open_session(slots=1)
        simulate(search, loss, slots=1)
    write_experiment(experiment, space)
    write_trials(search, run / "trials.csv")
    assert search.best
    write_best(run, search.best, search.best.best_epoch)
    return run


def write_best(run: Path, trial: Trial, epoch: int) -> None:
    shutil.rmtree(run / "best", ignore_errors=True)
    state = {"epoch": epoch, "task": {"total": total(trial.config)}}
    save_state(state, run / "best/checkpoint")
    (run / "best/metrics.json").write_text(json.dumps({"trial": trial.number, "epoch": epoch}))


@pytest.fixture
def run(right: Path, tmp_path: Path) -> Path:
    """A copy, to be forged."""
    return Path(shutil.copytree(right, tmp_path / "faulty"))


def forge(run: Path, change: Callable[[Lines], Lines]) -> None:
    path = run / "journal.jsonl"
    lines = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def is_result(line: dict[str, Any], trial: int, epoch: int) -> bool:
    return (line["event"], line.get("trial"), line.get("epoch")) == ("result", trial, epoch)


def test_a_run_that_is_right_is_found_right(run: Path) -> None:
    assert list(check_run(run, VARIANT)) == []
    assert not happened(run)


def test_a_trial_that_is_lost_is_found(run: Path) -> None:
    forge(run, lambda lines: [line for line in lines if line.get("trial") != TRIALS - 1])
    assert f"trials were started: {list(range(TRIALS - 1))}" in list(check_run(run, VARIANT))


def test_a_trial_that_the_table_lacks_is_found(run: Path) -> None:
    rows = (run / "trials.csv").read_text().splitlines(keepends=True)
    (run / "trials.csv").write_text("".join(rows[:-1]))
    left = [str(trial) for trial in range(TRIALS - 1)]
    assert list(check_run(run, VARIANT)) == [f"trials.csv has trials {left}"]


def test_an_epoch_that_is_counted_twice_is_found(run: Path) -> None:
    forge(run, lambda lines: [x for line in lines for x in [line] * (1 + is_result(line, 1, 2))])
    assert list(check_run(run, VARIANT)) == ["(trial, epoch) counted twice: [(1, 2)]"]


def test_an_epoch_that_is_left_out_is_found(run: Path) -> None:
    forge(run, lambda lines: [line for line in lines if not is_result(line, 1, 2)])
    assert "trial 1 has epochs [1, 3, 4]" in list(check_run(run, VARIANT))


def test_a_best_model_that_is_another_one_is_found(run: Path) -> None:
    write_best(run, Trial(1, {"x": 1.75}, "random", 4), 4)
    named, saved = check_run(run, VARIANT)
    assert named.startswith("best/ has trial 1, epoch 4, not ")
    assert saved.startswith("best/checkpoint is of epoch 4 with loss 0.6375, not 4, ")


def test_a_trial_that_failed_by_itself_is_found(run: Path) -> None:
    last = TRIALS - 1
    error = {"type": "NotFinite", "message": "loss is nan"}
    event = {"event": "fail", "time": 0.0, "trial": last, "error": error}
    forge(run, lambda lines: [event if is_result(line, last, 4) else line for line in lines])
    assert f"trial {last} is failed, with {error}; its fate: None" in list(check_run(run, VARIANT))
    assert happened(run) == {"nan": 1}


def test_a_run_that_is_not_over_is_found(run: Path) -> None:
    forge(run, lambda lines: lines[:-6])
    assert "the run is interrupted" in list(check_run(run, VARIANT))


def test_a_target_that_none_has_reached_is_found(run: Path) -> None:
    text = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(text.replace("target: null", "target: -1.0"))
    found = list(check_run(run, VARIANT._replace(ending="target")))
    assert found == [
        "the run is finished",
        "the target -1.0 was reached at the events []; started since: []",
    ]


def test_traces_tell_what_has_changed(run: Path) -> None:
    before = traces(run)
    assert {"journal.jsonl", "best/metrics.json", "best/checkpoint/state.pt"} < before.keys()
    forge(run, lambda lines: lines[:-1])
    (run / "best/config.yaml").touch()
    changed = set(before.items()) ^ set(traces(run).items())
    assert {name for name, _ in changed} == {"journal.jsonl", "best/config.yaml"}
