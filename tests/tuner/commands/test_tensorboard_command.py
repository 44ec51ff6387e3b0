import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from tensorboardX import SummaryWriter
from typer.testing import CliRunner

from tests.conftest import CommandLine
from tests.tuner.commands.recorded_runs import record_run
from tuner.cli import app
from tuner.commands.tensorboard import _as_one


def record_events(folder: Path, trials: int = 1) -> None:
    """A finished run with a scalar of each trial."""
    record_run(folder.parent, folder.name)
    for number in range(trials):
        with SummaryWriter(str(folder / f"trial_{number:04d}")) as writer:
            writer.add_scalar("val_accuracy", 0.5, 1)
    (folder / "trial_0000" / "checkpoint_000001").mkdir()


@contextmanager
def serving(process: subprocess.Popen[str], number: int) -> Iterator[str]:
    """The URL of a server that is ended with a signal, whatever happens."""
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://localhost:\d+/", line)
        assert found, line
        yield found[0]
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert errors == ""


def tags(url: str) -> dict[str, list[str]]:
    """Of every trial that the server has found."""
    with urlopen(f"{url}data/plugin/scalars/tags", timeout=30) as answer:  # noqa: S310 - http
        return {run: list(of_run) for run, of_run in json.load(answer).items()}


def test_it_serves_the_trials_of_a_run_until_ctrl_c(tuner: CommandLine, tmp_path: Path) -> None:
    record_events(tmp_path / "flowers", trials=2)
    with serving(tuner.start("tensorboard", "flowers", "--port", "0"), signal.SIGINT) as url:
        assert tags(url) == {"trial_0000": ["val_accuracy"], "trial_0001": ["val_accuracy"]}
        port = url.rstrip("/").rpartition(":")[2]
        second = tuner("tensorboard", "flowers", "--port", port)
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith(f"error: --port is {port}: ")
    assert "already in use; --port 0 takes any free one" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    with socket.socket() as probe:
        assert probe.connect_ex(("localhost", int(port))) != 0


def test_several_runs_are_served_side_by_side(tuner: CommandLine, tmp_path: Path) -> None:
    tuner.env["TMPDIR"] = str(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    for name in ("flowers", "pets"):
        record_events(tmp_path / name)
    process = tuner.start("tensorboard", "flowers", "pets", "flowers", "--port", "0")
    with serving(process, signal.SIGTERM) as url:
        assert set(tags(url)) == {"flowers/trial_0000", "pets/trial_0000"}
    assert not list((tmp_path / "temporary").glob("tuner-tensorboard-*"))


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/flowers", "b/flowers", "b/pets")]
    for folder in folders:
        folder.mkdir(parents=True)
    with _as_one(folders) as place:
        seen = {link.name: link.resolve() for link in place.iterdir()}
    assert set(seen.values()) == set(folders)
    assert seen["pets"] == folders[2]
    assert sorted(name.rpartition("-")[0][-2:] for name in seen if name != "pets") == ["-a", "-b"]
    assert not place.exists()
    with _as_one(folders[:1]) as place:
        assert place == folders[0]


def test_a_folder_that_is_no_run_and_one_without_events_are_named(
    tuner: CommandLine, tmp_path: Path
) -> None:
    done = tuner("tensorboard", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} is no run folder")

    record_run(tmp_path, "early")
    done = tuner("tensorboard", "early")
    assert done.returncode == 1
    assert done.stderr.startswith("error: early has no events for TensorBoard: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["tensorboard", "ui"])
@pytest.mark.parametrize("port", ["-1", "65536"])
def test_what_can_be_no_port_is_a_usage_error(command: str, port: str) -> None:
    done = CliRunner().invoke(app, [command, "flowers", "--port", port])
    assert done.exit_code == 2
    assert "'--port'" in done.output
