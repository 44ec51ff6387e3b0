import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search_spaces import SPACES
from tests.conftest import CommandLine
from tests.tuner.commands.recorded_runs import cut_journal, describe_run, open_search, record_run
from trainables import TRAINABLES
from tuner.experiment import builtin_experiments
from tuner.search.journal import JOURNAL, Journal


def rows(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}


def test_all_that_comes_with_tuner_is_listed_with_a_line_on_what_it_is(tuner: CommandLine) -> None:
    done = tuner("list")

    assert done.returncode == 0
    found = rows(done.stdout)
    for name in [*builtin_experiments(), *SPACES, *TRAINABLES]:
        assert len(found[name]) > 1, name
    assert "no runs in runs" in done.stdout


def test_runs_are_listed_with_state_counts_and_best(tuner: CommandLine, tmp_path: Path) -> None:
    finished = record_run(tmp_path / "runs", "flowers")

    done = tuner("list")

    assert finished.best is not None
    best = f"{finished.value(finished.best.best_loss):.4f}"
    expected = ["flowers", "finished", "12/12", str(finished.epochs_done), "val_accuracy", best]
    assert rows(done.stdout)["flowers"] == expected


def test_the_state_is_told_from_the_journal_and_its_lock(
    tuner: CommandLine, tmp_path: Path
) -> None:
    record_run(tmp_path, "broken_off")
    cut_journal(tmp_path / "broken_off", 30)
    describe_run(tmp_path, "died_at_once")
    (tmp_path / "died_at_once" / JOURNAL).touch()
    halted = describe_run(tmp_path, "halted")
    with Journal(halted.folder / JOURNAL) as journal:
        search = open_search(halted, journal)
        search.open_session(slots=1)
        search.halt("time budget of 10 s used up")
    under_way = describe_run(tmp_path, "under_way")
    with Journal(under_way.folder / JOURNAL) as journal:
        open_search(under_way, journal).open_session(slots=1)

        done = tuner("list", tmp_path)

    found = rows(done.stdout)
    assert found["broken_off"][1] == "interrupted"
    assert found["died_at_once"][1:4] == ["interrupted", "0/12", "0"]
    assert found["halted"][1:3] == ["ended", "early"]
    assert found["under_way"][1] == "running"


def test_a_run_whose_every_trial_failed_has_failed(tuner: CommandLine, tmp_path: Path) -> None:
    def fail(config: dict[str, Any], epoch: int) -> float:
        raise ValueError(f"no such thing as {config}, epoch {epoch}")

    record_run(tmp_path, "broken", fail, num_trials=3)

    done = tuner("list", tmp_path)

    assert rows(done.stdout)["broken"][1:] == ["failed", "3/3", "0"]


def test_a_grid_is_finished_when_its_own_number_of_trials_is(
    tuner: CommandLine, tmp_path: Path
) -> None:
    recorded = record_run(tmp_path, "grid", algorithm="grid", num_trials=1000, max_epochs=1)

    done = tuner("list", tmp_path)

    assert recorded.num_trials < 1000
    count = recorded.num_trials
    assert rows(done.stdout)["grid"][1:3] == ["finished", f"{count}/{count}"]


@pytest.mark.parametrize(
    "line", ["no json\n", '{"event":"result","time":1,"trial":7}\n', '{"event":"what","time":1}\n']
)
def test_a_damaged_run_does_not_hide_the_others(
    tuner: CommandLine, tmp_path: Path, line: str
) -> None:
    record_run(tmp_path, "sound", num_trials=2)
    record_run(tmp_path, "damaged", num_trials=2)
    with (tmp_path / "damaged" / JOURNAL).open("a") as file:
        file.write(line)

    done = tuner("list", tmp_path)

    assert done.returncode == 0
    assert rows(done.stdout)["sound"][1] == "finished"
    assert rows(done.stdout)["damaged"][1] == "unreadable"


LIGHT = """
import sys
from tuner.__main__ import main
sys.argv = ["tuner", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"torch", "ray", "ConfigSpace", "numpy"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list", "."], ["show", "flowers"]])
def test_light_commands_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    record_run(tmp_path, "flowers")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
