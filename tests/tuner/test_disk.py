"""What a run takes of a disk, looked at as it goes; and what it does where there is no more."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from tests.conftest import EXAMPLES, CommandLine
from tuner.errors import StorageError, TakenOverError, UserError, is_full, storage_problem
from tuner.experiment import make_experiment
from tuner.history import read_history
from tuner.run import _Run, start_run
from tuner.search.journal import read_journal

BALLAST = 200_000
MAX_GB = 0.003


def described(storage: Path, ballast: int, exported: int = 0, **search: Any) -> dict[str, Any]:
    return {
        "name": "run",
        "trainable": "heavy_task:Heavy",
        "settings": {"ballast": ballast, "exported": exported},
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ballast", "exported", "reason"),
    [
        (4_000_000, 0, "is full: "),
        (60_000_000, 0, "a checkpoint could not be saved, a disk is full: "),
        (1000, 60_000_000, "a disk is full: Error while serializing: I/O error: No space left"),
    ],
    ids=["disk", "checkpoint", "model"],
)
def test_a_full_disk_ends_a_run_which_goes_on_once_there_is_room(
    ballast: int, exported: int, reason: str, small_disk: Path, tuner_there: CommandLine
) -> None:
    folder = tuner_there.folder
    (folder / "heavy_task.py").write_text((EXAMPLES / "heavy_task.py").read_text())
    values = described(small_disk, ballast, exported, num_trials=8, max_epochs=1)
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


@pytest.mark.parametrize(
    "save",
    [
        lambda path, zeros: torch.save(zeros, path),
        lambda path, zeros: save_file({"zeros": zeros}, path),
        lambda path, zeros: path.write_bytes(zeros.numpy().tobytes()),
    ],
    ids=["torch", "safetensors", "python"],
)
def test_a_full_disk_is_told_whoever_wrote_there(
    save: Callable[[Path, torch.Tensor], object], small_disk: Path
) -> None:
    with pytest.raises((OSError, RuntimeError, SafetensorError)) as failed:
        save(small_disk / "model", torch.zeros(60_000_000, dtype=torch.uint8))
    assert is_full(str(failed.value))


def chained(*errors: Exception) -> Exception:
    """The last one, of the others."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


def test_what_ended_a_run_is_found_beneath_what_others_made_of_it() -> None:
    full, wrapped = (
        OSError(28, "No space left on device"),
        RuntimeError("No space left on device.."),
    )
    told = StorageError("a checkpoint could not be saved")
    assert str(storage_problem(chained(full, wrapped))) == (
        "a disk is full: [Errno 28] No space left on device"
    )
    failing = OSError(5, "Input/output error", "/runs/run/best/config.yaml")
    assert str(storage_problem(chained(failing, RuntimeError("not saved")))) == (
        "a disk fails: [Errno 5] Input/output error: '/runs/run/best/config.yaml'"
    )
    assert storage_problem(chained(full, told, wrapped)) is told
    assert storage_problem(chained(full, UserError("every trial failed"))) is None
    assert storage_problem(ValueError("a bug")) is None


@pytest.mark.parametrize(
    ("storage", "problem", "done", "end"),
    [
        ("/runs", StorageError("full"), ["drop", "write", "report"], "resume /runs/run"),
        ("s3://box", StorageError("gone"), ["write", "report"], "resume /runs/run"),
        ("s3://box", TakenOverError("another has it"), [], "another has it"),
    ],
)
def test_a_run_that_is_cut_off_deletes_nothing_that_may_be_anothers(
    storage: str, problem: StorageError, done: list[str], end: str
) -> None:
    calls: list[str] = []

    def note(call: str) -> None:
        calls.append(call)
        raise RuntimeError("a library's own error of a full disk")

    run: Any = SimpleNamespace(
        experiment=SimpleNamespace(storage=storage, folder=Path("/runs/run")),
        search=SimpleNamespace(epochs_done=3),
        drop_leftovers=lambda: note("drop"),
        write=lambda: note("write"),
        report=lambda _: note("report"),
        settle=lambda: "",
    )
    error = _Run.cut_off(run, problem)
    assert calls == done
    assert type(error) is type(problem)
    assert str(error).endswith(end)


def test_where_a_run_is_saved_is_told_if_its_storage_takes_it_no_more() -> None:
    for settled, where in (
        (True, ""),
        (False, " on this machine alone (in /mirror, so go on here)"),
    ):
        kept = SimpleNamespace(settle=lambda s=settled: s, folder="/mirror")
        run: Any = SimpleNamespace(kept=kept)
        assert _Run.settle(run) == where
