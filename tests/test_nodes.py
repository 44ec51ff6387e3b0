"""Several nodes on one machine, each with its address: ranks apart, nodes lost and joining."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml
from ray._private.state import actors
from ray.util import placement_group_table

from tests.conftest import EXAMPLES, CommandLine
from tuner.cluster import POLL_SECONDS
from tuner.run import start_run

pytestmark = pytest.mark.slow

NETWORK = f"127.{os.getpid() // 250 % 250}.{os.getpid() % 250}"
"""Addresses of the loopback that no other test has."""


QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A killed node refuses connections, so these end the test sooner; a busy one is given 10 s."""


class Node:
    """``ray start --block``, and what it starts."""

    def __init__(self, folder: Path, number: int, *options: str) -> None:
        self.address = f"{NETWORK}.{number}"
        self._folder, self._options = folder / str(number), options
        self._start()

    def _start(self) -> None:
        self._folder.mkdir()
        self._log = self._folder / "log"
        command = [
            Path(sys.executable).with_name("ray"), "start", "--block", "--disable-usage-stats",
            "--node-ip-address", self.address, "--temp-dir", self._folder,
            "--object-store-memory", 100 * 2**20, *self._options,
        ]  # fmt: skip
        # a test that ran a rank in this process has hidden the GPUs that there are not
        here = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                list(map(str, command)), env={**here, **QUICK},
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def wait(self, attempts: int = 3) -> None:
        """Until it has joined. On a busy machine Ray's own time limits of 15 and 30 s are short."""
        while "Ray runtime started" not in self._log.read_text():
            if self.process.poll() is not None:
                assert attempts > 1, self._log.read_text()
                self._folder = self._folder.with_name(f"{self._folder.name}a")
                self._start()
                attempts -= 1
            time.sleep(0.2)

    @property
    def cluster_address(self) -> str:
        return (self._folder / "ray_current_cluster").read_text().strip()

    def kill(self) -> None:
        """End all its processes at once, as a power cut does."""
        first = psutil.Process(self.process.pid)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class Nodes:
    """A head that holds no ranks but those that want a GPU, and workers of one type."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        holds = ("--num-cpus", "4", "--num-gpus", "4")
        self.head = Node(folder, 1, "--head", "--port", "0", "--include-dashboard", "false", *holds)
        self.workers: list[Node] = []

    @property
    def address(self) -> str:
        return self.head.cluster_address

    def add(self, cpus: int) -> Node:
        resources = json.dumps({"accelerator_type:WORKER": 1})
        options = ["--address", self.address, "--num-cpus", str(cpus), "--resources", resources]
        node = Node(self._folder, len(self.workers) + 2, *options)
        self.workers.append(node)
        return node

    def stop(self) -> None:
        for node in [*self.workers, self.head]:
            node.stop()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    folder = Path("/tmp") / f"tuner-nodes-{os.getpid()}"  # noqa: S108 - sockets have short paths
    folder.mkdir()
    started = Nodes(folder)
    try:
        started.head.wait()
        yield started
    finally:
        started.stop()


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs/toy/journal.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def last(folder: Path, kind: str) -> dict[str, Any] | None:
    """The latest event of a kind."""
    return next((event for event in reversed(events(folder)) if event["event"] == kind), None)


def wait_for(run: "subprocess.Popen[str]", happened: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def alive_actors() -> list[dict[str, Any]]:
    return [actor for actor in actors().values() if actor["State"] == "ALIVE"]


def groups() -> list[dict[str, Any]]:
    return [g for g in placement_group_table().values() if g["state"] != "REMOVED"]


@pytest.mark.parametrize(("gpus", "slots", "ranks_on_a_gpu"), [(2, 2, 1), (1, 4, 1), (0.5, 8, 2)])
def test_trials_share_four_gpus_as_they_ask_for_them(  # noqa: PLR0917 - pytest gives them by name
    gpus: float,
    slots: int,
    ranks_on_a_gpu: int,
    nodes: Nodes,
    experiment: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Each rank sees its own GPU, or the one it has a part of; all trials run at once."""
    (tmp_path / "seen").mkdir()
    summary = start_run(
        experiment(
            trainable="seated:Seated",
            settings={"folder": str(tmp_path / "seen"), "together": slots},
            search__num_trials=slots,
            search__max_epochs=1,
            resources={"gpus_per_trial": gpus, "cpus_per_worker": 0.5},
        ),
        address=nodes.address,
        folder=EXAMPLES,
    )
    assert summary.slots == summary.actors == slots
    assert all(t.results[1]["together"] == slots for t in summary.search.trials), "one after other"
    seen = [json.loads(path.read_text()) for path in (tmp_path / "seen").iterdir()]
    assert {len(seats) for seats in seen} == {max(1, int(gpus))}
    seats = [seat for seats in seen for seat in seats]
    assert Counter(seat["devices"] for seat in seats) == dict.fromkeys("0123", ranks_on_a_gpu)
    assert {seat["gpus"] for seat in seats} == {min(gpus, 1)}


def prepare(tuner: CommandLine, address: str) -> None:
    """A Task and an experiment whose trials have two ranks on nodes of the workers' type."""
    tuner.env["RAY_ADDRESS"] = address
    (tuner.folder / "toy_task.py").write_text((EXAMPLES / "toy_task.py").read_text())
    values: dict[str, Any] = {
        "name": "toy",
        "trainable": "toy_task:Toy",
        "search_space": str(EXAMPLES / "every_kind.yaml"),
        "settings": {"sleep": 0.5},
        "search": {"metric": "loss", "mode": "min", "algorithm": "random"},
        "resources": {
            "workers_per_trial": 2, "placement": "spread", "accelerator_type": "WORKER",
        },
        "cache": {"dir": str(tuner.folder / "cache")},
    }  # fmt: skip
    values["search"] |= {"num_trials": 2, "max_epochs": 9}
    (tuner.folder / "toy.yaml").write_text(yaml.safe_dump(values))


def test_a_folder_that_nodes_do_not_share_is_refused(nodes: Nodes, tuner: CommandLine) -> None:
    """The driver has a file system of its own at runs/, which the nodes do not see."""
    nodes.add(2).wait()
    prepare(tuner, nodes.address)
    (tuner.folder / "runs").mkdir()
    run = [sys.executable, "-m", "tuner", "run", "toy.yaml"]
    own = 'mount -t tmpfs tmpfs runs && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", own, "x", *run],
        cwd=tuner.folder, env=tuner.env, text=True, capture_output=True, check=False,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("only root may mount")
    assert done.returncode == 1, done.stderr
    assert (
        f"error: storage is '{tuner.folder}/runs', a folder that these nodes do not share: "
        f"{NETWORK}.2; give one that every node sees"
    ) in done.stderr
    nodes.workers[0].stop()


def test_a_trial_outlives_its_nodes_and_new_nodes_are_used(
    nodes: Nodes, tuner: CommandLine
) -> None:
    """Its ranks are apart; a node is preempted, another dies, so that none is left; one joins."""
    alive = [nodes.add(1) for _ in range(3)]
    for node in alive:
        node.wait()
    prepare(tuner, nodes.address)
    ray.init(nodes.address, log_to_driver=False)
    try:
        before = len(alive_actors()), len(groups())
        run = tuner.start("run", "toy.yaml")
        preempt_a_node(run, tuner.folder, alive, nodes.head)
        killed, noticed = kill_a_node(run, tuner.folder, alive, nodes.head)
        gone = lambda: sum(node["Alive"] for node in ray.nodes()) == 2  # noqa: E731
        wait_for(run, gone, "Ray takes the killed nodes for alive")
        time.sleep(2 * POLL_SECONDS)
        nodes.add(3).wait()
        out, error = run.communicate(timeout=180)
        assert run.returncode == 0, error
        deadline = time.monotonic() + 20
        while (len(alive_actors()), len(groups())) != before and time.monotonic() < deadline:
            time.sleep(0.2)
        assert (len(alive_actors()), len(groups())) == before
    finally:
        ray.shutdown()
    assert "no node can hold a trial now: waiting 20 min for one to join" in out + error
    assert "slots: 2" in out, "the node that joined has room for a second trial"
    results = [event for event in events(tuner.folder) if event["event"] == "result"]
    epochs = Counter((event["trial"], event["epoch"]) for event in results)
    assert set(epochs.values()) == {1}
    assert set(epochs) == {(trial, epoch) for trial in range(2) for epoch in range(1, 10)}
    again = min(event["time"] for event in results if event["time"] > noticed)
    print(f"noticed after {noticed - killed:.1f} s, next epoch after {again - killed:.1f} s")
    assert noticed - killed < 15


def preempt_a_node(
    run: "subprocess.Popen[str]", folder: Path, alive: list[Node], head: Node
) -> None:
    """Tell a node to go that holds a rank: the trial leaves it after an epoch, and loses none."""
    victim = holder_of_a_rank(run, folder, alive, head)
    victim.process.terminate()
    wait_for(run, lambda: last(folder, "withdraw"), "nobody left the node")
    assert last(folder, "interrupt") is None
    result, kept, left = (last(folder, kind) for kind in ("result", "checkpoint", "withdraw"))
    assert result
    assert kept
    assert left
    assert left["reason"] == "a node of its slot is to go"
    assert left["trial"] == result["trial"] == kept["trial"] == 0
    assert kept["epoch"] == result["epoch"]
    wait_for(run, lambda: victim.process.poll() is not None, "the node stays")


def kill_a_node(
    run: "subprocess.Popen[str]", folder: Path, alive: list[Node], head: Node
) -> tuple[float, float]:
    """Kill a node that holds a rank, once an epoch is saved; returns when, and when it was seen."""
    victim = holder_of_a_rank(run, folder, alive, head)
    lost = last(folder, "interrupt")
    killed = time.time()
    victim.kill()
    wait_for(run, lambda: last(folder, "interrupt") != lost, "the loss was not noticed")
    noticed, result, kept = (last(folder, kind) for kind in ("interrupt", "result", "checkpoint"))
    assert noticed
    assert result
    assert kept
    assert noticed["trial"] == result["trial"] == kept["trial"] == 0
    assert kept["epoch"] >= result["epoch"] - 1, "more than an epoch is lost"
    return killed, noticed["time"]


def holder_of_a_rank(
    run: "subprocess.Popen[str]", folder: Path, alive: list[Node], head: Node
) -> Node:
    """A node that holds one of the two ranks, once an epoch more is saved; it is to go."""
    saved = last(folder, "checkpoint")
    wait_for(run, lambda: last(folder, "checkpoint") != saved, "no epoch was finished")
    holding = {actor["Address"]["IPAddress"] for actor in alive_actors()} - {head.address}
    assert len(holding) == 2, "the ranks are not apart"
    victim = next(node for node in alive if node.address in holding)
    alive.remove(victim)
    return victim
