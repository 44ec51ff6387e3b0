from pathlib import Path

import pytest

from tests.conftest import CommandLine

EXPERIMENT = """
name: counting
trainable: counting:Counting
search_space: {hyperparameters: {x: {type: float, lower: 0.0, upper: 1.0, default: 0.5, grid: 5}}}
search: {algorithm: random, metric: loss, mode: min, num_trials: 6, max_epochs: 4}
"""

TASK = """
import time
import torch
from trainables import Task

class Counting(Task):
    def train_epoch(self):
        time.sleep(0.5)
        if self.config.get("broken"):
            raise RuntimeError("the wheel came off")
        return {}
    def evaluate(self):
        return {"loss": self.config["x"]}
    def state_dict(self):
        return {"weights": torch.zeros(250_000)}
    def load_state_dict(self, state):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "counting.yaml").write_text(EXPERIMENT)
    (tmp_path / "counting.py").write_text(TASK)
    return tmp_path


def cells(output: str, row: str) -> list[str]:
    line = next(line for line in output.splitlines() if line.startswith(row))
    return [cell.strip() for cell in line.removeprefix(row).split("  ") if cell]


def test_epochs_time_and_disk_come_from_two_real_epochs(
    tuner_there: CommandLine, folder: Path
) -> None:
    one_at_once = ["--set", "resources.max_concurrent_trials=1"]
    done = tuner_there("plan", "counting.yaml", *one_at_once)

    assert done.returncode == 0, done.stderr
    heading = "counting: random, 6 trials of up to 4 epochs, 1 at once, each on 1 CPU (1 rank)"
    assert heading in done.stdout
    assert cells(done.stdout, "epochs") == ["24", "24"]
    seconds = float(done.stdout.partition("configuration: ")[2].split()[0])
    assert 0.5 <= seconds < 5
    assert cells(done.stdout, "disk") == ["7 MB", "8 MB"]
    assert not (folder / "runs").exists()


def test_a_task_that_fails_is_found_before_the_run(tuner_there: CommandLine, folder: Path) -> None:
    tuner_there.env["TMPDIR"] = str(folder)
    done = tuner_there("plan", "counting.yaml", "--set", "settings.broken=true")

    assert done.returncode == 1
    assert (
        "error: every trial failed, the first with RuntimeError: the wheel came off" in done.stderr
    )
    shown = done.stderr.rpartition("see: python -m tuner ")[2].split()
    assert "the wheel came off" in tuner_there(*shown).stdout, "what the message names is kept"


@pytest.mark.usefixtures("folder")
def test_with_seconds_per_epoch_nothing_is_run(tuner: CommandLine) -> None:
    grid = ["--set", "search.algorithm=grid", "--set", "resources.max_concurrent_trials=1"]
    done = tuner("plan", "counting.yaml", "--seconds-per-epoch", "60", *grid)

    assert done.returncode == 0, done.stderr
    assert "timing" not in done.stdout
    assert "grid, 5 trials of up to 4 epochs, 1 at once" in done.stdout
    assert "20 min 00 s" in done.stdout
    assert "0.33" in done.stdout


@pytest.mark.usefixtures("folder")
def test_a_time_budget_below_the_expected_time_is_pointed_out(tuner: CommandLine) -> None:
    budget = ["--set", "stop.time_budget=1m"]
    done = tuner("plan", "counting.yaml", "--seconds-per-epoch", "60", *budget)

    assert "stop.time_budget ends the search after 1 min 00 s" in done.stdout


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds-per-epoch", "0"], "--seconds-per-epoch is 0: it must be above 0"),
        (["--seconds-per-epoch", "nan"], "--seconds-per-epoch is nan: it must be above 0"),
        (
            ["--seconds-per-epoch", "1", "--set", "resources.gpus_per_trial=64"],
            "resources: a trial needs 64 CPUs, 64 GPUs (64 ranks)",
        ),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_line(
    tuner: CommandLine, arguments: list[str], said: str
) -> None:
    done = tuner("plan", "counting.yaml", *arguments)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}")
    assert len(done.stderr.splitlines()) == 1
