"""The ranks of a trial as one: a call runs on all of them, and comes to one outcome."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import ray
import torch
from ray._private.state import state as cluster_state  # no public way to ask for draining nodes
from ray.exceptions import RayError
from ray.util import get_current_placement_group, placement_group_table

from trainables.gpu_monitor import GPU_PREFIX
from trainables.memory import MEMORY_METRICS
from trainables.peer import RankLostError, rank_options
from trainables.process_group import abort_group, open_store, use_interface_of
from trainables.rank import Failure, Outcome, Rank

GRACE_SECONDS = 8.0
"""How long the other ranks may take to come out of their collectives after one has failed."""

START_SECONDS = 300.0
"""How long the peers may take to start: they import torch, perhaps from a network file system."""

POLL_SECONDS = 2.0
"""How often it is looked whether the nodes that hold ranks are still there, and are to stay."""


class RankGroup:
    """Rank 0 in a thread of this process, the others in actors; one call runs on all of them.

    Args:
        bundle: resources of rank 0.
        peers: of the other ranks, as :func:`trainables.peer.start_peers` has them.

    """

    def __init__(self, bundle: dict[str, float], peers: Sequence[Any] = ()) -> None:
        _leave_the_cores_to_rank_0()
        self._size = 1 + len(peers)
        use_interface_of(ray.util.get_node_ip_address())
        self._first = Rank(0, self._size, **rank_options(bundle))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rank0")
        self._peers = peers
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
        if pending:
            raise RankLostError(f"{len(pending)} ranks did not start within {START_SECONDS:.0f} s")

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


def smaller_micro_batch(failure: Failure | None) -> int:
    """What to try after ``failure``; 0 where that is of no use."""
    return (failure.micro_batch or 0) // 2 if failure else 0


def merged(metrics: list[dict[str, Any]]) -> dict[str, Any]:
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


def _leave_the_cores_to_rank_0() -> None:
    """Have torch use one thread for what this thread does, such as to save a checkpoint.

    With a second pool of threads in the process, OpenMP has more than there are cores, and lets
    them sleep between any two operations: epochs on 2 threads took 1.25 times as long.
    """
    torch.get_num_threads()  # the first use in a thread takes over what another thread has set last
    torch.set_num_threads(1)


def _is_placed() -> bool:
    """Whether every node that holds a rank is there."""
    try:
        return bool(placement_group_table(get_current_placement_group())["state"] == "CREATED")
    except Exception as error:
        raise RankLostError(f"the cluster does not answer: {error}") from error


def _outcome(future: "Future[Outcome]") -> Outcome | RayError:
    try:
        return future.result()
    except RayError as error:
        return error


def _failed(outcome: Outcome | RayError) -> bool:
    return isinstance(outcome, RayError) or outcome.failure is not None


def _one_line(error: RayError) -> str:
    return " ".join(str(error).split())[:500]
