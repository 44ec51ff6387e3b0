"""Runs as jobs of a real cluster with a dashboard, which wants a token."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from tests.conftest import EXAMPLES, CommandLine, _wait_for_address

pytestmark = pytest.mark.slow

README = (Path(__file__).parent.parent / "README.md").read_text()
TOKEN = "a-token-of-this-test-alone"  # noqa: S105


Left = tuple[list[str], list[str], list[str]]
"""Actors, placement groups and processes."""


@dataclass(frozen=True)
class Head:
    """A cluster of one node, with its dashboard."""

    url: str
    env: dict[str, str]
    process: psutil.Process

    def ask(self, what: str) -> list[dict[str, Any]]:
        """Ray's state API: ``actors``, ``placement_groups``."""
        answer = requests.get(
            f"{self.url}/api/v0/{what}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
        )
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]["result"]
        return found

    def left(self) -> Left:
        """What there is of jobs: actors, placement groups, processes."""
        actors = [actor["class_name"] for actor in self.ask("actors") if actor["state"] != "DEAD"]
        groups = [g["state"] for g in self.ask("placement_groups") if g["state"] != "REMOVED"]
        return actors, groups, [*self._processes()]

    def _processes(self) -> Iterator[str]:
        """Drivers and workers; an idle worker belongs to no job any more."""
        rays_own = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
        for process in self.process.children(recursive=True):
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "-m tuner" in command or (
                command.startswith("ray::") and not command.startswith(rays_own)
            ):
                yield command


NOTHING: Left = ([], [], [])


def of_the_readme(runs: Path) -> list[list[str]]:
    """The arguments of the README's commands for jobs, in their order."""
    (block,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    export, *commands = block.replace("/shared/runs", str(runs)).splitlines()
    assert export == "export RAY_API_SERVER_ADDRESS=http://HOST:8265", "as the fixture does"
    return [shlex.split(command.removeprefix("python -m tuner ")) for command in commands]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    # sockets have short paths, so not below pytest's own folders
    folder = Path("/tmp") / f"tuner-jobs-{os.getpid()}"  # noqa: S108
    place = tmp_path_factory.mktemp("head")
    token = place / "token"
    token.write_text(TOKEN)
    dashboard, agent, agent_grpc, client = _free_ports(4)
    command = [
        Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port", "0",
        "--node-ip-address", "127.0.0.1", "--num-cpus", "4", "--temp-dir", folder,
        "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent,
        "--dashboard-agent-grpc-port", agent_grpc, "--ray-client-server-port", client,
        "--disable-usage-stats", "--object-store-memory", 200 * 2**20,
    ]  # fmt: skip
    here = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = place / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **here}, cwd=place,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for_address(folder, process, log)
        yield Head(f"http://127.0.0.1:{dashboard}", here, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def tuner(tmp_path: Path, head: Head) -> CommandLine:
    """A user's folder; the token is there, and no ``RAY_AUTH_MODE`` says that it is to be sent."""
    tuner = CommandLine(tmp_path / "project", {**head.env, "RAY_API_SERVER_ADDRESS": head.url})
    del tuner.env["RAY_AUTH_MODE"]
    tuner.folder.mkdir()
    for name in ("toy_task.py", "held_task.py", "every_kind.yaml"):
        (tuner.folder / name).write_text((EXAMPLES / name).read_text())
    values: dict[str, Any] = {
        "name": "toy",
        "trainable": "toy_task:Toy",
        "search_space": "every_kind.yaml",
        "search": {
            "algorithm": "random", "metric": "loss", "mode": "min",
            "num_trials": 2, "max_epochs": 2,
        },
        "resources": {"workers_per_trial": 1, "max_concurrent_trials": 1},
        "storage": str(tmp_path / "runs"),
        "cache": {"dir": str(tmp_path / "cache")},
    }  # fmt: skip
    (tuner.folder / "toy.yaml").write_text(yaml.safe_dump(values))
    return tuner


def results(run: Path) -> list[dict[str, Any]]:
    journal = run / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in events if event["event"] == "result"]


def wait_for(found: Callable[[], Any], expected: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while found() != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found() == expected


def ray_job(tuner: CommandLine, job: str, *arguments: str) -> subprocess.Popen[str]:
    """``ray job submit``, as its documentation has it, with a PYTHONPATH of the job's own."""
    env_vars = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    command = [
        str(Path(sys.executable).with_name("ray")), "job", "submit", "--working-dir", ".",
        "--submission-id", job, "--metadata-json", '{"run": "mine"}',
        "--runtime-env-json", json.dumps(env_vars), "--", "python", "-m", "tuner", *arguments,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=tuner.folder, env={**tuner.env, "RAY_AUTH_MODE": "token"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_submitted_run_goes_to_its_end_and_tells_of_it(tuner: CommandLine) -> None:
    plain = ray_job(tuner, "plain", "run", "toy.yaml", "--set", "name=plain")
    done = tuner("submit", "toy.yaml", timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("submitted toy-")
    assert "trial 0 started" in done.stdout
    assert "2 trials (2 completed), 4 epochs" in done.stdout
    assert (tuner.folder.parent / "runs/toy/best/checkpoint").is_dir()
    assert TOKEN not in done.stdout + done.stderr
    again = tuner("submit", "toy.yaml", timeout=240)
    assert again.returncode == 1
    assert "go on with python -m tuner submit " in again.stdout
    done_row, again_row = (
        line for line in tuner("status").stdout.splitlines() if line.startswith("toy ")
    )
    assert done_row.split()[2] == "succeeded"
    assert again_row.split()[2] == "failed"
    assert "error: name is 'toy': " in again_row
    out, _ = plain.communicate(timeout=120)
    assert plain.returncode == 0, out
    assert "2 trials (2 completed), 4 epochs" in out
    assert (tuner.folder.parent / "runs/plain/best/checkpoint").is_dir()
    for path in tuner.folder.parent.glob("runs/**/*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


def test_a_stopped_run_leaves_nothing_behind_and_goes_on(tuner: CommandLine, head: Head) -> None:
    """By the commands of the README."""
    runs, go = tuner.folder.parent / "runs", tuner.folder.parent / "go"
    submit, status, stop, resume, logs = of_the_readme(runs)
    run = runs / "flowers"
    values = yaml.safe_load((tuner.folder / "toy.yaml").read_text())
    values |= {
        "name": "flowers",
        "trainable": "held_task:Held",
        "settings": {"case": "waits", "go": str(go)},
        "storage": "runs",
    }
    values["resources"]["workers_per_trial"] = 2
    (tuner.folder / "flowers.yaml").write_text(yaml.safe_dump(values))
    wait_for(head.left, NOTHING)
    begun = tuner(*submit)
    assert begun.returncode == 0, begun.stderr
    job = begun.stdout.split()[1]
    follower = tuner.start("logs", "flowers", "--follow")
    wait_for(lambda: len(results(run)) == 1, expected=True, seconds=90)
    actors, groups, processes = head.left()
    assert sorted(actors) == ["DistributedTrainable", "JobSupervisor", "Peer"]
    assert groups == ["CREATED"]
    assert len(processes) >= 4  # those three, the driver, and its shell
    row = next(line for line in tuner(*status).stdout.splitlines() if job in line)
    assert row.split()[:3] == ["flowers", job, "running"]
    os.kill(follower.pid, signal.SIGINT)
    out, error = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert "trial 0 started" in out
    assert error.startswith(f"detached; {job} goes on. Follow it with: python -m tuner logs {job}")
    stopped = tuner(*stop)
    assert stopped.returncode == 0, stopped.stderr
    first, last = stopped.stdout.splitlines()
    assert first == f"{job}: stopped"
    assert last.startswith("interrupted after 1 epochs; the state is saved. Go on with: ")
    assert last.endswith(f"python -m tuner submit {run}")
    wait_for(head.left, NOTHING)
    go.touch()
    resumed = tuner(*resume, timeout=240)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "2 trials (2 completed), 4 epochs" in resumed.stdout
    assert [(e["trial"], e["epoch"]) for e in results(run)] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert tuner(*logs).stdout in resumed.stdout
    wait_for(head.left, NOTHING)
