"""A Task on N ranks as one Ray Tune trainable whose processes stay from trial to trial."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from pyarrow.fs import FileType
from ray.tune import Trainable

from trainables.peer import RankLostError, WornOutError, start_peers, title

if TYPE_CHECKING:  # what imports torch is imported below, when the peers do so, too
    from trainables.rank import Outcome
    from trainables.rank_group import RankGroup

NODE_LEAVES = "node_leaves"
"""In a result: a node that holds a rank is to go; the trial does well to go on elsewhere."""


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
        return title(self._slot, 0)

    def setup(self, config: dict[str, Any]) -> None:
        """Have the peers start, and remember the trial; the first step waits for them."""
        self._group: RankGroup | None = None
        self._slot: int | None = getattr(self.trial_resources, "slot", None)
        self._peers = start_peers(self.trial_resources.bundles, self._slot)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take over another trial. Nothing here may fail: Tune would not try again."""
        from trainables.rank import TrialSpec

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
        from trainables.rank_group import RankGroup, merged, smaller_micro_batch

        if self._group is None:
            self._group = RankGroup(self.trial_resources.bundles[0], self._peers)
        outcome, recoveries = self._run_epoch(self._group), 0
        while smaller := smaller_micro_batch(outcome.failure):
            self._micro_batch_limit, self._built = smaller, False
            self._group.call("close")  # before NCCL looks for memory to form the group anew
            recoveries += 1
            outcome = self._run_epoch(self._group)
        if outcome.failure:
            self._built = False
            return {"failure": {**vars(outcome.failure)}}
        metrics = merged(outcome.value)
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
        from trainables.checkpoint import DamagedCheckpointError

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
        from trainables.checkpoint import save_state

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
        from trainables.checkpoint import load_state

        saved = load_state(Path(checkpoint))
        self._state, self._built = saved["task"], False
        self._iteration = saved["epoch"]

    def cleanup(self) -> None:
        """End the peers, without waiting for anything they do; this process ends next."""
        for peer in self._peers:
            ray.kill(peer)

    def _run_epoch(self, group: "RankGroup") -> "Outcome":
        from trainables.rank import MemoryNotFreedError

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
