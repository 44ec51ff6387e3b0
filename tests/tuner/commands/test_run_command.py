"""A run as scripts see it: --json and --quiet, to its end, resumed, and with errors."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import EXAMPLES, CommandLine

Ran = tuple[CommandLine, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Ran:
    """Four trials that halve twice, then a final fit; also for W&B, offline; told as JSON."""
    folder = tmp_path_factory.mktemp("json")
    tuner = CommandLine(folder, {"RAY_ADDRESS": ray_address, "WANDB_MODE": "offline"})
    for name in ("toy_task.py", "every_kind.yaml"):
        (folder / name).write_text((EXAMPLES / name).read_text())
    values: dict[str, Any] = {
        "name": "toy",
        "trainable": "toy_task:Toy",
        "search_space": "every_kind.yaml",
        "search": {
            "algorithm": "asha",
            "metric": "loss",
            "mode": "min",
            "num_trials": 4,
            "max_epochs": 4,
        },
        "resources": {"workers_per_trial": 1, "max_concurrent_trials": 2},
        "cache": {"dir": str(folder / "cache")},
        "logging": {"wandb_project": "flowers"},
        "final": {"epochs": 2, "data": "train"},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(values))
    return tuner, tuner("run", "toy.yaml", "--json")


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_tells_a_run_from_its_start_to_its_summary(ran: Ran) -> None:
    tuner, done = ran
    told, folder = records(done), tuner.folder / "runs/toy"

    assert (done.returncode, done.stderr) == (0, "")
    assert [record["event"] for record in told[:2]] == ["run", "cluster"]
    assert told[0].items() >= {
        "folder": str(folder), "log": str(folder / "run.log"), "algorithm": "asha",
        "metric": "loss", "mode": "min", "trials": 4, "max_epochs": 4,
    }.items()  # fmt: skip
    assert told[1]["slots"] == 2
    assert {record["event"] for record in told} >= {"start", "result", "checkpoint", "close"}
    assert "warning" not in {record["event"] for record in told}
    final = [r["event"] for r in told if r.get("phase") == "final"]
    assert (final.count("start"), final.count("result")) == (1, 2)


def test_the_summary_is_what_the_events_add_up_to(ran: Ran) -> None:
    tuner, done = ran
    *told, summary = records(done)
    results = [r for r in told if r["event"] == "result" and r["phase"] == "search"]
    best = min(results, key=lambda r: r["metrics"]["loss"])

    assert (summary["event"], summary["state"], summary["halted"]) == ("summary", "finished", None)
    assert summary["epochs"] == len(results)
    found = summary["best"]
    assert (found["trial"], found["epoch"]) == (best["trial"], best["epoch"])
    assert found["value"] == best["metrics"]["loss"]
    (start,) = (r for r in told if r["event"] == "start" and r["trial"] == found["trial"]
                and r["phase"] == "search")  # fmt: skip
    assert found["config"] == start["config"]
    assert sum(summary["trials"].values()) == 4
    assert (summary["default"]["trial"], summary["failures"]) == (0, [])
    assert summary["model"] == str(tuner.folder / "runs/toy/best")
    assert Path(summary["model"]).is_dir()


def test_wandb_has_a_run_a_trial_and_one_of_the_final_fit(ran: Ran) -> None:
    tuner, done = ran
    started = {r["trial"] for r in records(done) if r["event"] == "start"}

    runs = tuner.folder / "runs/toy"
    ids = {path.stem for path in runs.glob("wandb/offline-run-*/run-*.wandb")}
    final = list(runs.glob("final/wandb/offline-run-*/run-*.wandb"))
    assert {int(name[-4:]) for name in ids} == started
    assert len(final) == 1


def test_a_run_that_is_over_is_told_again(ran: Ran) -> None:
    tuner, done = ran

    as_json, quiet = tuner("resume", "runs/toy", "--json"), tuner("resume", "runs/toy", "--quiet")

    run, summary = records(as_json)
    assert run["event"] == "run"
    kept = ("best", "default", "epochs", "trials", "model")
    assert {k: summary[k] for k in kept} == {k: records(done)[-1][k] for k in kept}
    assert quiet.stdout.startswith("4 trials (")
    assert "\nbest model: runs/toy/best\n" in quiet.stdout
    assert quiet.stdout.endswith("\ncurves: python -m tuner tensorboard runs/toy\n")


def test_an_error_is_an_object_beside_the_line(tuner: CommandLine) -> None:
    done = tuner("run", "missing.yaml", "--json")

    (error,) = records(done)
    assert (done.returncode, error["event"], error["exit_code"]) == (1, "error", 1)
    assert done.stderr == f"error: {error['message']}\n"


def test_quiet_and_json_exclude_each_other(tuner: CommandLine) -> None:
    done = tuner("run", "--quiet", "--json")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --quiet and --json cannot both hold")
