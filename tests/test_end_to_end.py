"""Whole runs from the command line: killed, interrupted, resumed."""

import csv
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml

from tests.conftest import EXAMPLES, CommandLine
from trainables.checkpoint import load_state
from tuner.experiment import load_experiment
from tuner.history import read_history
from tuner.run import start_run

JOURNAL = Path("runs/toy/journal.jsonl")


@pytest.fixture
def toy(tuner: CommandLine) -> CommandLine:
    """A folder with a Task and an experiment in it, as a user would have."""
    return prepare(tuner)


@pytest.fixture
def toy_there(tuner_there: CommandLine) -> CommandLine:
    """The same, with the session's cluster."""
    return prepare(tuner_there)


def prepare(tuner: CommandLine) -> CommandLine:
    for name in ("toy_task.py", "every_kind.yaml"):
        (tuner.folder / name).write_text((EXAMPLES / name).read_text())
    values: dict[str, Any] = {
        "name": "toy",
        "trainable": "toy_task:Toy",
        "search_space": "every_kind.yaml",
        "settings": {"sleep": 0.2},
        "search": {"metric": "loss", "mode": "min", "num_trials": 9, "max_epochs": 9},
        "resources": {"workers_per_trial": 2, "max_concurrent_trials": 1},
        "cache": {"dir": str(tuner.folder / "cache")},
    }
    (tuner.folder / "toy.yaml").write_text(yaml.safe_dump(values))
    return tuner


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / JOURNAL
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for_results(folder: Path, process: Popen[str], count: int) -> None:
    for _ in range(600):
        if sum(event["event"] == "result" for event in events(folder)) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{count} results did not come: {events(folder)}")


def check_whole(folder: Path, trials: int) -> None:
    """Every trial there, each epoch counted once, and the best is what the results say."""
    results = [event for event in events(folder) if event["event"] == "result"]
    assert set(Counter((e["trial"], e["epoch"]) for e in results).values()) == {1}
    rows = list(csv.DictReader((folder / "runs/toy/trials.csv").open()))
    assert [int(row["trial"]) for row in rows] == list(range(trials))
    assert {row["state"] for row in rows} <= {"completed", "stopped"}
    best = min(results, key=lambda e: e["metrics"]["loss"])
    written = json.loads((folder / "runs/toy/best/metrics.json").read_text())
    assert (written["trial"], written["epoch"]) == (best["trial"], best["epoch"])
    checkpoint = load_state(folder / "runs/toy/best/checkpoint")
    assert checkpoint["epoch"] == best["epoch"], "another epoch's weights"


def outcome(run: Path) -> Any:
    """Every trial's configuration and results, how it ended, and which was the best."""
    history = read_history(run)
    trials = [
        (t.config, t.status, {epoch: metrics["loss"] for epoch, metrics in t.results.items()})
        for t in history.search.trials
    ]
    best = history.search.best
    assert best is not None
    return trials, history.search.reached, (best.number, best.best_epoch)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_end_of_an_unbroken_one(
    toy_there: CommandLine, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under BOHB, which pauses, promotes and models; the others' journals are in test_replay.py."""
    toy, changes = toy_there, {"search.algorithm": "bohb", "settings.sleep": 0.1}
    options = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    run = toy.start("run", "toy.yaml", *options)
    wait_for_results(toy.folder, run, 8)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    before = events(toy.folder)
    resumed = toy("resume", "runs/toy")
    assert resumed.returncode == 0, resumed.stderr
    assert events(toy.folder)[: len(before)] == before
    check_whole(toy.folder, 9)
    assert "trial actors started: 1, slots: 1" in resumed.stdout
    monkeypatch.chdir(toy.folder)
    other = {**changes, "name": "unbroken", "settings.sleep": 0}
    unbroken = start_run(load_experiment("toy.yaml", other), address=ray_address, folder=toy.folder)
    assert outcome(toy.folder / "runs/toy") == outcome(unbroken.folder)
    assert unbroken.actors == 1


def interrupt(toy: CommandLine, run: Popen[str], number: int) -> None:
    """Send a signal after two epochs more; the run ends by it, and says how to go on."""
    done = sum(event["event"] == "result" for event in events(toy.folder))
    wait_for_results(toy.folder, run, done + 2)
    os.kill(run.pid, number)
    output, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopping, within some 15 seconds" in output
    assert "Traceback" not in error
    command = "python -m tuner resume runs/toy"
    assert error.strip().endswith(f"the state is saved. Go on with: {command}")
    assert (toy.folder / "runs/toy/trials.csv").exists()
    assert (toy.folder / "runs/toy/best/config.yaml").exists()


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_resume(toy: CommandLine, toy_there: CommandLine) -> None:
    """By SIGINT, on a cluster of its own; by SIGTERM, on one that was there; then it ends."""
    changes = ("search.algorithm=random", "search.num_trials=4", "search.max_epochs=3")
    options = [part for change in changes for part in ("--set", change)]
    interrupt(toy, toy.start("run", "toy.yaml", *options), signal.SIGINT)
    interrupt(toy, toy_there.start("resume", "runs/toy"), signal.SIGTERM)
    assert toy_there("resume", "runs/toy").returncode == 0
    check_whole(toy.folder, 4)


def test_what_a_run_rests_on_cannot_change_when_it_is_resumed(toy: CommandLine) -> None:
    (toy.folder / "runs/toy").mkdir(parents=True)
    (toy.folder / JOURNAL).touch()
    done = toy("resume", "runs/toy", "--set", "search.seed=1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --set search.seed: a run that has begun can change")
