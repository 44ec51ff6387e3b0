"""The Ray cluster a run uses: one of its own, or one that is there."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from tuner.errors import UserError

POLL_SECONDS = 2.0
"""Nodes that came or went are seen within this time of Ray's knowing."""

PROBE_SECONDS = 20.0
"""How long is waited, before a run begins, for nodes to say whether they share its folder."""

ANSWER_SECONDS = 10
"""How long a cluster may take to accept a connection before a run joins it."""

IDLE_SECONDS = 30
"""How long workers that Ray has started ahead wait for a trial, whose resources others may hold."""


def is_job() -> bool:
    """Whether this process is a job's: Ray has handed it the job's configuration."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def joined(address: str | None) -> str | None:
    """The cluster that :func:`cluster` joins; None: it starts one, as Ray does for ``local``."""
    found = address or os.environ.get("RAY_ADDRESS")
    return None if found == "local" else found


@contextmanager
def cluster(
    address: str | None,
    folder: Path | None = None,
    metadata: Mapping[str, str] | None = None,
    preload: Sequence[str] = (),
) -> Iterator[str | None]:
    """Join the cluster at ``address`` (or ``RAY_ADDRESS``), else start one; yields its dashboard.

    Args:
        address: ``host:port``; None starts a cluster on this machine that ends with the run.
        folder: where the user's modules lie; the workers can import from it.
        metadata: what the dashboard says of this job.
        preload: modules that every worker of a cluster that is started here imports at once, while
            the driver goes on. They must be safe to import: an error other than ImportError ends
            the worker.

    Raises:
        UserError: no cluster answers at the address.

    """
    import ray
    from ray.job_config import JobConfig

    key = "--address" if address else "RAY_ADDRESS"
    address = joined(address)
    if address:
        _require_cluster(key, address)
    paths = [str(path.resolve()) for path in (folder, Path.cwd()) if path is not None]
    python_path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    of_workers = {
        "PYTHONPATH": python_path,
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "PL_DISABLE_FORK": "1",  # as Tune has it: github.com/ray-project/ray/issues/28197
    }
    settings = {
        **of_workers,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # a job may set a PYTHONPATH, which ours begins from
        "RAY_idle_worker_killing_time_threshold_ms": IDLE_SECONDS * 1000,  # Ray: 1 s, too early
        "RAY_preload_python_modules": ",".join(preload),
    }
    with environment(settings):
        try:
            context = ray.init(
                address=address or "local",
                job_config=JobConfig(metadata=dict(metadata or {})),
                runtime_env={"env_vars": of_workers} if address else None,
                logging_level=logging.WARNING,
                include_dashboard=None if address else True,
                _temp_dir=os.environ.get("RAY_TMPDIR") if not address else None,
            )
        except ConnectionError as error:
            raise _no_cluster(key, address, error) from error
    try:
        yield context.dashboard_url
    finally:
        _leave()


def _require_cluster(key: str, address: str) -> None:
    """Look whether a Ray cluster is there: Ray itself would wait for minutes, without a word.

    Where nothing listens, that is seen at once; what listens and is no cluster has 40 s to answer.

    Raises:
        UserError: there is none.

    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # as ray health-check has it

    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        GcsClient(address=address)  # asks for the cluster's id
    except Exception as error:
        raise _no_cluster(key, address, error) from error


def _no_cluster(key: str, address: str | None, error: Exception) -> UserError:
    return UserError(
        f"{key} is {address!r}: no Ray cluster can be joined there ({error}); give HOST:PORT as "
        f"ray start --head prints it (most often 6379, not the dashboard's), or leave {key} out. "
        "If the cluster wants a token, set RAY_AUTH_MODE=token"
    )


def _leave() -> None:
    """Leave the cluster; one that was started for the run ends."""
    import ray

    try:
        ray.shutdown()
    except OSError:  # it first prints the workers' last words, perhaps onto a disk that is full
        ray.shutdown()


class Capacity:
    """How many trials the cluster holds at once, as its nodes come and go.

    Args:
        bundles: resources of a trial, one bundle a rank, all alike.
        limit: the most slots that are wanted; None: all there are.
        joined: whether the cluster was there before, and may grow. Trials then wait in its queue
            for as many slots as ``limit`` says, by which an autoscaler sees what is wanted.
        folder: the run's, if it is a local one: every node that can run a rank must see it, which
            is looked at once a node.

    """

    def __init__(
        self,
        bundles: list[dict[str, float]],
        limit: int | None,
        folder: Path | None = None,
        *,
        joined: bool = False,
    ) -> None:
        self._bundles, self._limit = bundles, limit
        self._queue = Queue(bundles) if joined and limit else None
        self._shared = SharedFolder(folder) if folder else None
        self._due = 0.0
        self.slots = 0
        """As they were last counted."""

    def require(self) -> int:
        """The slots there are now; where it may grow, at least one, that is to come.

        Raises:
            UserError: there is none, so that Ray would wait for ever, or a node lacks the folder.

        """
        nodes = _alive()
        held = [node["Resources"] for node in nodes]
        self.slots = _count(self._bundles, held, self._limit)
        if not self.slots and not self._queue:
            raise _no_room(self._bundles, held)
        self._check_folder(nodes, PROBE_SECONDS)
        return max(self.slots, 1)

    def count(self) -> int:
        """The slots there are, counted every few seconds; 0: no node is left that holds a trial.

        Raises:
            UserError: a node that has joined lacks the folder.

        """
        now = time.monotonic()
        if now >= self._due:
            nodes = _alive()
            self.slots = _count(self._bundles, [n["Resources"] for n in nodes], self._limit)
            if self._queue and self._limit:
                self._queue.keep(self._limit - self.slots)
            self._check_folder(nodes)
            self._due = now + POLL_SECONDS
        return self.slots

    def _check_folder(self, nodes: Sequence[Mapping[str, Any]], seconds: float = 0.0) -> None:
        """Ask the nodes that can run a rank, and wait for their answers for a while."""
        if self._shared is None:
            return
        able = [node for node in nodes if _fit(self._bundles[0], node["Resources"])]
        self._shared.ask({node["NodeID"]: node["NodeManagerAddress"] for node in able})
        if lacking := self._shared.lacking(seconds):
            raise UserError(
                f"storage is {str(self._shared.folder.parent)!r}, a folder that these nodes do not "
                f"share: {', '.join(lacking)}; give one that every node sees, such as a network "
                "mount, or object storage: --set storage=..."
            )


class SharedFolder:
    """Whether nodes see what is written into a folder here. Each is asked once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._token = folder / f".seen-{uuid4().hex}"
        self._asked: set[str] = set()
        self._answers: dict[Any, str] = {}
        """What is still to come: reference -> the address of the node."""

    def ask(self, nodes: Mapping[str, str]) -> None:
        """Have nodes (Ray's id -> address) look for a file that is there from now on."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()
        new = [node for node in nodes if node != here and node not in self._asked]
        self._asked.update(new)
        if new:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._token.touch()
        for node in new:
            on_it = NodeAffinitySchedulingStrategy(node, soft=False)
            look = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_it)(os.path.exists)
            self._answers[look.remote(str(self._token))] = nodes[node]

    def lacking(self, seconds: float = 0.0) -> list[str]:
        """Addresses of nodes that have not seen it. One that does not answer is not among them."""
        import ray
        from ray.exceptions import RayError

        if not self._answers:
            return []
        waiting = list(self._answers)
        answered, _ = ray.wait(waiting, num_returns=len(waiting), timeout=seconds)
        found = []
        for answer in answered:
            address = self._answers.pop(answer)
            with suppress(RayError):  # the node is gone again
                found += [] if ray.get(answer) else [address]
        if not self._answers:
            self._token.unlink(missing_ok=True)
        return sorted(found)


class Queue:
    """Placement groups that wait for nodes, one a trial. They end with the driver."""

    def __init__(self, bundles: list[dict[str, float]]) -> None:
        self._bundles = bundles
        self._waiting: list[Any] = []

    def keep(self, length: int) -> None:
        """Have so many waiting; what finds its place gives it up, to a trial."""
        from ray.util import placement_group, remove_placement_group

        placed = [group for group in self._waiting if group.wait(0)]
        self._waiting = [group for group in self._waiting if group not in placed]
        while len(self._waiting) > length:
            placed.append(self._waiting.pop())
        for group in placed:
            remove_placement_group(group)
        while len(self._waiting) < length:
            self._waiting.append(placement_group(self._bundles))


def _alive() -> list[dict[str, Any]]:
    """The nodes of the cluster, as Ray describes them, but those that are to go."""
    import ray
    from ray._private.state import state  # no public way to ask

    draining = state.get_draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]


def are_most_workers_ranks(bundles: list[dict[str, float]], limit: int | None) -> bool:
    """Whether of the workers that Ray starts ahead on this machine, one a CPU, most become ranks.

    They then do well to import what ranks need. Those beside a few GPUs would take memory only.
    """
    cpus = os.cpu_count() or 1
    return 2 * len(bundles) * _count(bundles, [{"CPU": cpus}], limit) >= cpus


def count_slots(bundles: list[dict[str, float]], limit: int | None = None) -> int:
    """How many trials with these bundles (all alike) fit into the cluster at once.

    Raises:
        UserError: not even one does: Ray would wait for ever.

    """
    return Capacity(bundles, limit).require()


def fitting_slots(
    bundles: list[dict[str, float]], nodes: list[Mapping[str, float]], limit: int | None = None
) -> int:
    """How many trials with these bundles (all alike) fit onto nodes with these resources.

    Raises:
        UserError: not even one does.

    """
    slots = _count(bundles, nodes, limit)
    if slots < 1:
        raise _no_room(bundles, nodes)
    return slots


def _no_room(bundles: list[dict[str, float]], nodes: Sequence[Mapping[str, float]]) -> UserError:
    bundle, ranks = bundles[0], len(bundles)
    held = {key: sum(node.get(key, 0) for node in nodes) for key in bundle}
    need = ", ".join(f"{ranks * amount:g} {_label(key)}" for key, amount in bundle.items())
    have = ", ".join(f"{amount:g} {_label(key)}" for key, amount in held.items())
    if len(nodes) > 1:
        have += f", on {len(nodes)} nodes, and a rank must fit onto one"
    remedy = "lower resources.gpus_per_trial, workers_per_trial or cpus_per_worker"
    if not any(held.values()):
        remedy += "; where nodes come as they are wanted, set resources.max_concurrent_trials"
    return UserError(
        f"resources: a trial needs {need} ({ranks} ranks), but the cluster has {have}; {remedy}"
    )


def _count(
    bundles: list[dict[str, float]], nodes: Sequence[Mapping[str, float]], limit: int | None
) -> int:
    """The slots on these nodes; a trial's ranks may lie on several."""
    slots = sum(_fit(bundles[0], node) for node in nodes) // len(bundles)
    return min(slots, limit) if limit else slots


def _fit(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many ranks a node holds."""
    return min(_shares(key, node.get(key, 0), amount) for key, amount in bundle.items())


def _shares(resource: str, held: float, amount: float) -> int:
    """How often ``amount`` goes into what a node holds; parts of a GPU lie on one GPU each."""
    if resource == "GPU" and amount < 1:
        return int(1 / amount + 1e-9) * int(held)
    return int(held / amount + 1e-9)


def _label(resource: str) -> str:
    return {"CPU": "CPUs", "GPU": "GPUs"}.get(resource, resource)


@contextmanager
def environment(values: Mapping[str, Any]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update({key: str(value) for key, value in values.items()})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
