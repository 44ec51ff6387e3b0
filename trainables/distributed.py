"""A Task on N ranks as one Ray Tune trainable whose processes stay from trial to trial."""

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from pyarrow.fs import FileType
from ray._private.state import state as cluster_state  # no public way to ask for draining nodes
from ray.exceptions import RayError
from ray.tune import Trainable
from ray.util import get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from trainables.checkpoint import DamagedCheckpointError, load_state, save_state
from trainables.gpu_monitor import GPU_PREFIX
from trainables.memory import MEMORY_METRICS
from trainables.process_group import abort_group, open_store, use_interface_of
from trainables.rank import Failure, MemoryNotFreedError, Outcome, Rank, TrialSpec

GRACE_SECONDS = 8.0
"""How long the other ranks may take to come out of their collectives after one has failed."""

START_SECONDS = 300.0
"""How long the peers may take to start: they import torch, perhaps from a network file system."""


POLL_SECONDS = 2.0
"""How often it is looked whether the nodes that hold ranks are still there, and are to stay."""

NODE_LEAVES = "node_leaves"
"""In a result: a node that holds a rank is to go; the trial does well to go on elsewhere."""


class RankLostError(RuntimeError):
    """A rank's process or connection is gone; the trial must go on in new processes."""


class WornOutError(RankLostError):
    """A process holds memory of earlier trials. The trial has lost nothing by its own fault."""


class DistributedTrainable(Trainable):  # type: ignore[misc]
    """Runs the Task of ``config["spec"]`` on as many ranks as the trial has bundles.

    The trial actor is rank 0, actors in the other bundles are its peers. One :meth:`step` is one
    epoch. With ``reuse_actors=True`` the next trial finds the processes, the group and whatever the
    Task caches as they are.

    What the configuration does wrong (the Task raises, on any rank) comes back as a final result
    with a ``failure``, and the processes stay. Only a lost process raises, and one that must be
    replaced because earlier trials have left memory behind in it.
    """

    def __repr__(self) -> str:
        """What the dashboard calls this process, from its start on: it serves many trials."""
        return _title(self._slot, 0)

    def setup(self, config: dict[str, Any]) -> None:
        """Remember the trial; everything that can fail waits for the first step."""
        self._group: RankGroup | None = None
        self._slot: int | None = getattr(self.trial_resources, "slot", None)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial. Nothing here may fail: Tune would not try again."""
        self._spec = TrialSpec(**new_config["spec"])
        if self._spec.log_dir:  # a relative one is below the trial's own folder on this node
            log_dir = str(Path(self.logdir) / self._spec.log_dir)
            self._spec = replace(self._spec, log_dir=log_dir)
        self._state: dict[str, Any] | None = None
        """The Task's, at the start of the epoch that is run next; None: as it was built."""
        self._built = False
        self._micro_batch_limit: int | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train and evaluate for one epoch; returns the Task's metrics, or its ``failure``.

        Where memory runs out in its midst, the epoch begins again with a smaller micro-batch.

        Raises:
            RankLostError: a rank's process is gone, or holds memory of earlier trials.

        """
        if self._group is None:
            self._group = RankGroup(self.trial_resources.bundles, self._slot)
        outcome, recoveries = self._run_epoch(self._group), 0
        while smaller := _smaller_micro_batch(outcome.failure):
            self._micro_batch_limit, self._built = smaller, False
            self._group.call("close")  # before NCCL looks for memory to form the group anew
            recoveries += 1
            outcome = self._run_epoch(self._group)
        if outcome.failure:
            self._built = False
            return {"failure": {**vars(outcome.failure)}}
        metrics = _merged(outcome.value)
        if recoveries:
            metrics["oom_recoveries"] += recoveries
        if self._group.is_leaving():
            metrics[NODE_LEAVES] = True
        return {**metrics, "should_checkpoint": True}

    def restore(self, checkpoint_path: Any) -> None:
        """Refuse a checkpoint that Ray would unpickle; ours hold no such file.

        Raises:
            ValueError: the checkpoint holds one.
            DamagedCheckpointError: it is gone, or not whole.
            RankLostError: it cannot be read here and now.

        """
        checkpoint = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        pickled = f"{checkpoint.path}/_dict_checkpoint.pkl"
        try:
            folder, unwanted = checkpoint.filesystem.get_file_info([checkpoint.path, pickled])
            if folder.type == FileType.NotFound:
                raise DamagedCheckpointError(f"{checkpoint.path} is gone")
            if unwanted.is_file:
                raise ValueError(f"{pickled} is none of ours: a Task's checkpoint is not pickled")
            super().restore(checkpoint_path)
        except (OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            raise RankLostError(f"{checkpoint.path} cannot be read: {reason}") from error

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the Task's state and the epoch it belongs to.

        Raises:
            RuntimeError: the Task failed to give its state.

        """
        if self._group is None or not self._built:  # restored and not yet run: nothing new
            save_state({"epoch": self.iteration, "task": self._state}, Path(checkpoint_dir))
            return
        outcome = self._group.call("state")
        if outcome.failure:
            raise RuntimeError(f"state_dict() failed: {outcome.failure.message}")
        saved = {"epoch": self.iteration, "task": outcome.value[0]}
        self._state = save_state(saved, Path(checkpoint_dir))["task"]

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Read a checkpoint; the ranks take it over in the next step.

        Raises:
            DamagedCheckpointError: it is not whole.

        """
        saved = load_state(Path(checkpoint))
        self._state, self._built = saved["task"], False
        self._iteration = saved["epoch"]

    def cleanup(self) -> None:
        """End the peers; this process ends next."""
        if self._group is not None:
            self._group.shut_down()

    def _run_epoch(self, group: "RankGroup") -> Outcome:
        if not self._built:
            group.repair()
            state = ray.put(self._state) if self._state is not None else None
            limit = self._micro_batch_limit
            built = group.call("build", self._spec, state, self.iteration, limit)
            if built.failure and built.failure.type == MemoryNotFreedError.__name__:
                raise WornOutError(built.failure.message)
            if built.failure:
                return built
            self._built = True
        return group.call("run_epoch", self.iteration)


class RankGroup:
    """Rank 0 in a thread of this process, the others in actors; one call runs on all of them.

    Args:
        bundles: the trial's resource bundles, one a rank, as its placement group has them.
        slot: the place among those that hold a trial, for the dashboard.

    """

    def __init__(self, bundles: list[dict[str, float]], slot: int | None = None) -> None:
        self._size = len(bundles)
        use_interface_of(ray.util.get_node_ip_address())
        self._first = Rank(0, self._size, **_rank_options(bundles[0]))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rank0")
        self._peers = [
            _peer_class(rank, bundle).remote(slot, rank, self._size, **_rank_options(bundle))
            for rank, bundle in enumerate(bundles[1:], start=1)
        ]
        self._formed = False
        self._leaving, self._looked = False, time.monotonic()

    def is_leaving(self) -> bool:
        """Whether a node that holds a rank is being drained, as Ray does on its SIGTERM.

        That is what a preemption and a cluster that shrinks come to. The node's processes live on
        for ``RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S``, by default 30 s.
        """
        if not self._leaving and time.monotonic() > self._looked + POLL_SECONDS:
            self._looked = time.monotonic()
            with suppress(Exception):  # the cluster does not answer just now, which fails no trial
                group = placement_group_table(get_current_placement_group())
                leaving = cluster_state.get_draining_nodes()
                self._leaving = not leaving.keys().isdisjoint(group["bundles_to_node_id"].values())
        return self._leaving

    def repair(self) -> None:
        """Form the process group, where there is none or a failure broke it.

        Raises:
            RankLostError: a rank is gone or does not answer.

        """
        if self._formed or self._size == 1:
            return
        self._await_peers()
        host = ray.util.get_node_ip_address()
        store = open_store(host)  # lives until every rank has joined
        if failure := self.call("join", host, store.port).failure:
            raise RankLostError(f"the process group did not form: {failure.message}")
        self._formed = True

    def _await_peers(self) -> None:
        """Until every peer is up, and has done what an earlier abort asked for."""
        pending = [peer.abort.remote() for peer in self._peers]
        deadline = time.monotonic() + START_SECONDS
        while pending and time.monotonic() < deadline:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=POLL_SECONDS)
            if pending and not _is_placed():  # Ray looks for another node, perhaps for ever
                raise RankLostError("a node is gone on which a rank was to start")

    def call(self, method: str, *args: Any) -> Outcome:
        """Run a method of :class:`Rank` on every rank; returns all values, or the first cause.

        Raises:
            RankLostError: a rank's process is gone.

        """
        pending = self._submit(method, *args)
        outcomes: dict[int, Outcome | RayError] = {}
        failed_at = None
        while pending:
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                outcomes[pending.pop(future)] = _outcome(future)
            if failed_at is None and any(map(_failed, outcomes.values())):
                failed_at = time.monotonic()
                self._abort()
            if failed_at and pending and time.monotonic() > failed_at + GRACE_SECONDS:
                self._give_up(outcomes, sorted(pending.values()))
        return self._judge(outcomes)

    def call_first(self, method: str, *args: Any) -> Outcome:
        """Run a method on rank 0 alone, in the thread that its Task knows."""
        return self._thread.submit(self._first.call, method, *args).result()

    def shut_down(self) -> None:
        """End the peers, without waiting for anything they do."""
        for peer in self._peers:
            ray.kill(peer)

    def _submit(self, method: str, *args: Any) -> dict[Future[Outcome], int]:
        pending: dict[Future[Outcome], int] = {  # no trial in the name: Ray keeps 20 KB for each
            peer.call.options(name=method).remote(method, *args).future(): rank
            for rank, peer in enumerate(self._peers, start=1)
        }
        here = [ray.get(arg) if isinstance(arg, ray.ObjectRef) else arg for arg in args]
        pending[self._thread.submit(self._first.call, method, *here)] = 0
        return pending

    def _abort(self) -> None:
        """Break every rank out of the collective it may wait in."""
        self._formed = False
        abort_group()
        for peer in self._peers:
            peer.abort.remote()

    def _judge(self, outcomes: dict[int, "Outcome | RayError"]) -> Outcome:
        for rank, outcome in sorted(outcomes.items()):
            if isinstance(outcome, RayError):
                raise RankLostError(f"rank {rank} of {self._size} is gone: {_one_line(outcome)}")
        answers = [outcome for _, outcome in sorted(outcomes.items())]
        failures = [o.failure for o in answers if isinstance(o, Outcome) and o.failure]
        if not failures:
            return Outcome([o.value for o in answers if isinstance(o, Outcome)])
        causes = [f for f in failures if not f.is_group_error]
        if not causes:
            raise RankLostError(f"the process group broke: {failures[0].message}")
        # what a rank's lack of memory does to the others can look like anything
        return Outcome(failure=min(causes, key=lambda f: (f.micro_batch is None, f.rank)))

    def _give_up(self, outcomes: dict[int, "Outcome | RayError"], silent: list[int]) -> None:
        """Ranks are stuck where no abort reaches them. If this one is, its process must end."""
        try:
            self._judge({0: Outcome(), **outcomes})
            reason = f"ranks {silent} did not answer for {GRACE_SECONDS:.0f} s after a failure"
        except RankLostError as error:
            reason = str(error)
        failed = [o.failure for o in outcomes.values() if isinstance(o, Outcome) and o.failure]
        if failed:
            reason += f"; rank {failed[0].rank} had failed with {failed[0].message}"
        if 0 in silent:
            print(reason, flush=True)  # noqa: T201 - the worker's log is what is left to tell
            os._exit(1)
        raise RankLostError(reason)


class Peer(Rank):
    """A rank in an actor of its own; ``abort`` reaches it while a call is under way."""

    def __init__(self, slot: int | None, rank: int, world_size: int, **options: Any) -> None:
        use_interface_of(ray.util.get_node_ip_address())
        super().__init__(rank, world_size, **options)
        self._slot = slot

    def __repr__(self) -> str:
        """What the dashboard calls this process."""
        return _title(self._slot, self.rank)

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def abort(self) -> None:
        """Leave the process group, which fails the collective that a call may wait in."""
        abort_group()


def _is_placed() -> bool:
    """Whether every node that holds a rank is there."""
    try:
        return bool(placement_group_table(get_current_placement_group())["state"] == "CREATED")
    except Exception as error:
        raise RankLostError(f"the cluster does not answer: {error}") from error


def _title(slot: int | None, rank: int) -> str:
    return f"rank {rank}" if slot is None else f"slot {slot} rank {rank}"


def _smaller_micro_batch(failure: Failure | None) -> int:
    """What to try after ``failure``; 0 where that is of no use."""
    return (failure.micro_batch or 0) // 2 if failure else 0


def _merged(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank 0's metrics; of memory, the most that a rank has; of GPUs, each rank's own."""
    memory = {
        name: max(of_rank[name] for of_rank in metrics)
        for name in metrics[0]
        if name in MEMORY_METRICS
    }
    gpus = {
        name: value
        for of_rank in metrics
        for name, value in of_rank.items()
        if name.startswith(GPU_PREFIX)
    }
    return metrics[0] | memory | gpus


def _outcome(future: "Future[Outcome]") -> Outcome | RayError:
    try:
        return future.result()
    except RayError as error:
        return error


def _failed(outcome: Outcome | RayError) -> bool:
    return isinstance(outcome, RayError) or outcome.failure is not None


def _rank_options(bundle: dict[str, float]) -> dict[str, Any]:
    return {"gpus": bundle.get("GPU", 0), "threads": max(1, int(bundle.get("CPU", 1)))}


def _peer_class(rank: int, bundle: dict[str, float]) -> Any:
    return ray.remote(concurrency_groups={"control": 1})(Peer).options(
        num_cpus=bundle.get("CPU", 0),
        num_gpus=bundle.get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            get_current_placement_group(), placement_group_bundle_index=rank
        ),
    )


def _one_line(error: RayError) -> str:
    return " ".join(str(error).split())[:500]
