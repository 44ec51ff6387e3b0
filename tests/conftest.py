"""One Ray cluster for each process of pytest, and the command line as a user runs it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    TUNE_WARN_THRESHOLD_S="60",
    AWS_ACCESS_KEY_ID="test",  # of a server that a test starts; it takes any
    AWS_SECRET_ACCESS_KEY="test",  # noqa: S106
    AWS_EC2_METADATA_DISABLED="true",
)

signal.signal(signal.SIGINT, signal.default_int_handler)
"""What is run in a shell's background ignores it, and so would all that the tests start."""

EXAMPLES = Path(__file__).parent / "examples"
LONGEST = ("test_readme.py", "test_tune_adapters.py", "test_end_to_end.py", "test_final.py")
"""Files of minutes: begun last, one of them would run on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    names = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: names.get(item.path.name, len(names)))


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a cluster of 8 logical CPUs that ends with the session."""
    with own_cluster() as address:
        yield address


@contextmanager
def own_cluster() -> Iterator[str]:
    """A cluster of 8 logical CPUs, for a while; its address."""
    # sockets have short paths, so not below pytest's own folders
    folder = Path("/tmp") / f"tuner-test-{os.getpid()}"  # noqa: S108
    command = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port", "0",
        "--node-ip-address", "127.0.0.1", "--include-dashboard", "false",
        "--num-cpus", "8", "--temp-dir", folder, "--disable-usage-stats",
        "--object-store-memory", str(200 * 2**20),
    ]  # fmt: skip
    with tempfile.NamedTemporaryFile("w+", prefix="tuner-test-") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield _wait_for_address(folder, process, Path(output.name))
        finally:
            process.terminate()  # it drains its node, then ends what it has started
            process.wait(60)


def _wait_for_address(folder: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(120):
        if process.poll() is not None:
            break
        if "Ray runtime started" in log.read_text():
            return (folder / "ray_current_cluster").read_text().strip()
        time.sleep(0.5)
    raise RuntimeError(f"the test cluster did not start: {log.read_text()}")


class CommandLine:
    """``python -m tuner`` in a folder of its own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**os.environ, **env}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", *map(str, arguments)],
            cwd=self.folder, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def __call__(
        self, *arguments: object, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


class InThisProcess(CommandLine):
    """The same for a command that starts nothing: without a process, which takes long to import."""

    def __call__(
        self, *arguments: object, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        from tuner.__main__ import main

        del timeout
        out, err, code = StringIO(), StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
            patch.setattr(sys, "path", [*sys.path])
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture
def tuner_here(tmp_path: Path) -> CommandLine:
    """The command line, in an empty folder, for commands that start nothing."""
    return InThisProcess(tmp_path, {})


@pytest.fixture
def tuner(tmp_path: Path) -> CommandLine:
    """The command line, in an empty folder; runs start a cluster of their own."""
    return CommandLine(tmp_path, {})


@pytest.fixture
def tuner_there(tmp_path: Path, ray_address: str) -> CommandLine:
    """The command line, in an empty folder, with the session's cluster."""
    return CommandLine(tmp_path, {"RAY_ADDRESS": ray_address})


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Any]:
    """Makes an experiment on the toy Task, with ``overrides`` by dotted path."""
    return partial(toy_experiment, tmp_path)


def toy_experiment(folder: Path, **overrides: Any) -> Any:
    """An experiment on the toy Task that runs in ``folder``; of an override, ``__`` is a dot."""
    from tuner.experiment import make_experiment

    values: dict[str, Any] = {
        "name": "toy",
        "trainable": "toy_task:Toy",
        "search_space": str(EXAMPLES / "every_kind.yaml"),
        "search": {
            "algorithm": "random", "metric": "loss", "mode": "min",
            "num_trials": 4, "max_epochs": 3,
        },
        "resources": {"workers_per_trial": 1, "max_concurrent_trials": 1},
        "storage": str(folder / "runs"),
        "cache": {"dir": str(folder / "cache")},
    }  # fmt: skip
    return make_experiment(values, {k.replace("__", "."): v for k, v in overrides.items()})
