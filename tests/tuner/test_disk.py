"""What a run takes of a disk, looked at as it goes; and what it does where there is no more."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import EXAMPLES, CommandLine
from tuner.experiment import make_experiment
from tuner.history import read_history
from tuner.run import start_run
from tuner.search.journal import read_journal

BALLAST = 200_000
MAX_GB = 0.003


def described(storage: Path, ballast: int, **search: Any) -> dict[str, Any]:
    return {
        "name": "run",
        "trainable": "heavy_task:Heavy",
        "settings": {"ballast": ballast},
        "search_space": {"hyperparameters": {"x": {"type": "float", "lower": 0, "upper": 1}}},
        "search": {"algorithm": "random", "metric": "loss", "mode": "min", **search},
        "resources": {"max_concurrent_trials": 2},
        "storage": str(storage),
    }


class Sampler(threading.Thread):
    """Adds up what a run's checkpoints take on the disk, again and again."""

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.sizes = run, list[int]()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.01):
            self.sizes.append(sum(map(size, self.run_folder.glob("trial_*/checkpoint_*/*"))))


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted since it was listed
        return 0


def test_checkpoints_of_100_trials_stay_below_the_limit(tmp_path: Path, ray_address: str) -> None:
    values = described(tmp_path, BALLAST, num_trials=100, max_epochs=1)
    values["checkpoints"] = {"max_gb": MAX_GB}
    sampler = Sampler(tmp_path / "run")
    sampler.start()

    run = start_run(make_experiment(values, {}), address=ray_address, folder=EXAMPLES)

    sampler.ended.set()
    sampler.join()
    assert len(run.search.trials) == 100
    assert len(sampler.sizes) > 100
    assert BALLAST * 5 < max(sampler.sizes) <= MAX_GB * 1e9
    kept = {path for trial in run.search.trials for path in trial.checkpoints.values()}
    assert kept == {str(path) for path in (tmp_path / "run").glob("trial_*/checkpoint_*")}
    best = run.search.best
    assert best is not None
    assert best.checkpoints
    assert (tmp_path / "run/best/checkpoint").is_dir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB, which a run ends on with less than 32 left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("ballast", "reason"),
    [
        (4_000_000, "is full: "),
        (60_000_000, "a checkpoint could not be saved, a disk is full: "),
    ],
)
def test_a_full_disk_ends_a_run_which_goes_on_once_there_is_room(
    ballast: int, reason: str, small_disk: Path, tuner_there: CommandLine
) -> None:
    folder = tuner_there.folder
    (folder / "heavy_task.py").write_text((EXAMPLES / "heavy_task.py").read_text())
    values = described(small_disk, ballast, num_trials=8, max_epochs=1)
    (folder / "run.yaml").write_text(yaml.safe_dump(values))

    done = tuner_there("run", "run.yaml")

    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert done.stderr.rstrip().endswith("Then go on with: python -m tuner resume disk/run")
    assert done.stderr.count("\n") == 1
    assert (small_disk / "run/trials.csv").exists()
    before = list(read_journal(small_disk / "run/journal.jsonl"))
    assert not [event for event in before if event["event"] == "fail"]

    subprocess.run(["mount", "-o", "remount,size=700m", small_disk], check=True)
    resumed = tuner_there("resume", "disk/run")

    assert resumed.returncode == 0, resumed.stderr
    search = read_history(small_disk / "run").search
    assert [(trial.status, trial.epoch) for trial in search.trials] == [("completed", 1)] * 8
    kept = {path for trial in search.trials for path in trial.checkpoints.values()}
    assert kept == {str(path) for path in (small_disk / "run").glob("trial_*/checkpoint_*")}
    assert json.loads((small_disk / "run/best/metrics.json").read_text())["trial"] in range(8)
