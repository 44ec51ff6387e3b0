from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tuner.history import read_history
from tuner.results import best_checkpoint


@pytest.mark.slow
def test_what_init_writes_runs_as_it_is(tuner: CommandLine, tmp_path: Path) -> None:
    written = tuner("init", "mine")

    assert written.returncode == 0
    assert written.stdout.splitlines()[-1].strip() == (
        "cd mine && python -m tuner run experiment.yaml"
    )
    done = CommandLine(tmp_path / "mine", {})("run", "experiment.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    history = read_history(tmp_path / "mine" / "runs" / "first")
    assert history.state == "finished"
    assert len(history.search.trials) == 8
    assert best_checkpoint(history.search) is not None
    assert history.search.best is not None
    assert history.search.value(history.search.best.best_loss) > 0.9


def test_the_skeleton_is_valid_where_init_is_given_no_folder(tuner: CommandLine) -> None:
    assert tuner("init").returncode == 0

    done = tuner("validate", "experiment.yaml")

    assert (done.returncode, done.stdout) == (0, "experiment.yaml: valid\n")


@pytest.mark.parametrize("name", ["experiment.yaml", "task.py"])
def test_nothing_is_overwritten(tuner: CommandLine, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    done = tuner("init", tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / name} exists already")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tuner: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = tuner("init", "file/folder")

    assert done.returncode == 1
    assert done.stderr.startswith("error: DIR is 'file/folder', which cannot be written")
