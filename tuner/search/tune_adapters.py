"""A search behind Ray Tune's Searcher and TrialScheduler. The only file that knows Tune's inside.

Who tells what (Ray 2.60, ``TuneController``): results come to the scheduler's ``on_trial_result``;
those that carry ``done`` skip it and come with its ``on_trial_complete``; final failures come to
the searcher's ``on_trial_complete(error=True)``, just after the scheduler's ``on_trial_error``.

Tune's own retries, its experiment state and its limit of concurrent trials stay unused: a lost
trial is started again from its journalled checkpoint, as a new Tune trial, by the search.
"""

import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

from pyarrow.fs import FileSelector, FileSystem
from ray.exceptions import RayTaskError
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint, PlacementGroupFactory
from ray.tune.callback import Callback
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils.object_cache import _ObjectCache

from search_spaces.errors import near
from trainables.checkpoint import DamagedCheckpointError
from trainables.distributed import NODE_LEAVES
from trainables.event_log import LOGGING_METRICS
from trainables.gpu_monitor import GPU_PREFIX
from trainables.hidden import hidden
from trainables.memory import MEMORY_METRICS
from trainables.peer import RankLostError, WornOutError
from trainables.rank import MICRO_BATCH_METRICS
from tuner.errors import StorageError, UserError, is_full
from tuner.search.search import Search
from tuner.search.trial import Decision, Status, Trial

with hidden("aim", "mlflow", "wandb"):  # Tune would import them, to count who logs to them by Tune
    import ray.air.integrations.mlflow
    import ray.air.integrations.wandb
    import ray.tune.logger.aim  # noqa: F401

AUTOFILLED = {
    "done",
    "iterations_since_restore",
    NODE_LEAVES,
    "pid",
    "should_checkpoint",
    "time_since_restore",
    "time_this_iter_s",
    "time_total_s",
    "timestamp",
    "training_iteration",
}
"""What a result has beside metrics; the search keeps the epoch and its seconds."""

SECONDS = "seconds"
"""The metric that :func:`_metrics` adds: what the epoch took."""

DECISIONS = {
    Decision.CONTINUE: TrialScheduler.CONTINUE,
    Decision.PAUSE: TrialScheduler.PAUSE,
    Decision.STOP: TrialScheduler.STOP,
}


STOPPING = (
    "stopping, within some 15 seconds; a resume trains the epochs under way again. Ctrl-C again "
    "stops at once"
)
"""What Ctrl-C is answered with."""

WAIT_SECONDS = 10.0
"""How long a trial waits for a process of its own, while another one stands idle."""

PATIENCE_SECONDS = 1200.0
"""How long a run waits for a node, where none can hold a trial: clouds bring GPUs slowly."""


UNSAVED = 3
"""Checkpoints a slot that may fail to be saved in a row, before the run ends."""


class SlotResources(PlacementGroupFactory):  # type: ignore[misc]
    """The bundles of a trial on one slot.

    Equal only to its own slot's: Tune reuses an actor for a trial whose resources are equal, so a
    slot's actor is lent to the next trial of that slot, and none is torn down for another's sake.
    """

    def __init__(self, bundles: list[dict[str, float]], slot: int, strategy: str = "PACK") -> None:
        super().__init__(bundles, strategy=strategy)
        self.slot = slot

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotResources) and self.slot == other.slot

    def __hash__(self) -> int:
        return hash((SlotResources, self.slot))


class WarmActors(_ObjectCache):  # type: ignore[misc]
    """Tune's cache of idle actors, keeping all of them: there are never more than slots.

    Args:
        leaves: whether the actor of a slot, which is asked for by its index, is to end instead.

    """

    def __init__(self, leaves: Callable[[int], bool]) -> None:
        super().__init__()
        self._leaves = leaves

    def cache_object(self, key: Any, obj: Any) -> bool:
        """Keep the actor until a trial of its slot wants it."""
        if self._leaves(key.slot):
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        """Give actors up only when nothing more can run."""
        if force_all:
            yield from super().flush_cached_objects(force_all=True)


@dataclass
class _Slot:
    """A place for one trial at a time. Between assignment and start it has no Tune trial yet."""

    index: int
    since: float = 0.0
    """When it took up its trial; ``time.monotonic()``."""
    trial: Trial | None = None
    tune_trial: TuneTrial | None = None
    warm: bool = False
    """A process holds its resources, with a trial or idle."""
    leaving: bool = False
    """Its process is on a node that is to go, and is used no more."""
    retired: bool = False
    """The cluster has shrunk, and has no room for it."""

    @property
    def free(self) -> bool:
        if self.trial is None:
            return True
        return self.tune_trial is not None and self.tune_trial.status not in (
            TuneTrial.PENDING,
            TuneTrial.RUNNING,
        )


class TuneBridge:
    """What the adapters share: the search, the slots, and which Tune trial stands for which trial.

    Args:
        search: the state machine.
        bundles: resources of a trial, one bundle a rank.
        count_slots: how many trials the cluster holds now; asked often. 0: not even one. Raises
            UserError where the run cannot go on as the cluster is.
        make_config: what Tune hands to the trainable for a trial.
        say: says a line to the user who wants to hear of everything.
        warn: says a line to every user.
        discard: calls what deletes a checkpoint that the journal names no more, when it may.
        placement: of a trial's ranks: ``"pack"`` or ``"spread"``.
        time_budget: seconds, over all sessions, after which running trials end with their epoch.

    """

    def __init__(
        self,
        search: Search,
        bundles: list[dict[str, float]],
        count_slots: Callable[[], int],
        make_config: Callable[[Trial], dict[str, Any]],
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        discard: Callable[[Callable[[], None]], None] = lambda delete: delete(),
        placement: str = "pack",
        time_budget: float | None = None,
    ) -> None:
        self.search, self.bundles, self.make_config = search, bundles, make_config
        self.time_budget = time_budget
        self.problem: UserError | None = None
        """Why the search was halted, where that is the user's to mend."""
        self.broken: str | None = None
        """Why the run ends before the search has, where the cluster does not let it go on."""
        self.reuses_actors = True
        self.actors: set[str] = set()
        """Ids of the trial actors that were started."""
        self._count_slots, self._warn, self._placement = count_slots, warn, placement
        self.say = say
        self.stopped = False
        """By Ctrl-C."""
        self._discard = discard
        self._slots: list[_Slot] = []
        self._withdrawn: list[TuneTrial] = []
        """Pending Tune trials whose slot was retired."""
        self._without_since: float | None = None
        """Since when no node can hold a trial; ``time.monotonic()``."""
        self._unsaved = 0
        """Checkpoints that could not be saved since one last was."""
        self._losses = 0
        """Processes lost since an epoch was last finished."""
        self._starting: list[_Slot] = []
        self._resuming: list[_Slot] = []
        self._filesystem: FileSystem | None = None
        """Where checkpoints lie, once there is one."""
        self._by_id: dict[str, _Slot] = {}
        self._trials: dict[str, Trial] = {}
        self._live: dict[int, TuneTrial] = {}
        """Number -> its Tune trial, while that is pending, running or paused."""
        self._errors: dict[str, tuple[bool, dict[str, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its settings into the run folder, but nobody reads them back."""
        return {}

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Itself: Tune copies its settings, :meth:`dirname` among them, for every trial."""
        return self

    def trial_of(self, tune_trial: TuneTrial) -> Trial:
        """The search's trial that a Tune trial stands for."""
        return self._trials[tune_trial.trial_id]

    def _slot_of(self, tune_trial: TuneTrial) -> _Slot | None:
        """The slot that a Tune trial was last on; None: another one has taken that since."""
        return next((slot for slot in self._slots if slot.tune_trial is tune_trial), None)

    def dirname(self, tune_trial: TuneTrial) -> str:
        """A short folder name; every attempt has its own, so that no checkpoint is overwritten."""
        trial = self.trial_of(tune_trial)
        attempt = f"_{trial.attempts}" if trial.attempts > 1 else ""
        return f"trial_{trial.number:04d}{attempt}"

    # -- slots ------------------------------------------------------------

    @property
    def slots(self) -> int:
        """The most trials that ran at once."""
        return len(self._slots)

    def fill_slots(self) -> None:
        """Give every free slot the search's next job, those with a process first."""
        if self.time_budget is not None and self.search.elapsed > self.time_budget:
            self.search.halt(f"time budget of {self.time_budget:.0f} s used up")
        self._follow_cluster()
        free = [slot for slot in self._slots if slot.free and not slot.retired]
        for slot in sorted(free, key=lambda slot: not slot.warm):
            slot.trial, slot.tune_trial = self.search.next_job(slot.index), None
            slot.since = time.monotonic()
            if slot.trial is None:
                self._relieve()
                return
            slot.warm = slot.warm and self.reuses_actors
            paused = slot.trial.number in self._live
            (self._resuming if paused else self._starting).append(slot)

    def _follow_cluster(self) -> None:
        """Open slots for nodes that have come; retire cold ones for those that have gone."""
        if self.broken:
            return
        try:
            count = self._count_slots()
        except UserError as error:
            self.broken = str(error)
            return
        self._wait_for_nodes(count)
        wanted = max(count, 1)  # one trial waits on, so that an autoscaler sees what is wanted
        opened = [slot for slot in self._slots if not slot.retired]
        for slot in [slot for slot in self._slots if slot.retired][: max(0, wanted - len(opened))]:
            slot.retired = False
            opened.append(slot)
        while len(opened) < wanted:
            opened.append(_Slot(len(self._slots)))
            self._slots.append(opened[-1])
        cold = [slot for slot in reversed(opened) if not self._holds_resources(slot)]
        for slot in cold[: max(0, len(opened) - wanted)]:
            self._retire(slot)

    def _relieve(self) -> None:
        """Take trials to processes that are idle from slots where they wait, perhaps for ever.

        What the cluster holds may be another run's: its processes stay warm to its end, as ours do.
        """
        if not any(slot.free and self._holds_resources(slot) for slot in self._slots):
            return
        for slot in self._slots:
            waits = not slot.free and not self._holds_resources(slot)
            if waits and time.monotonic() > slot.since + WAIT_SECONDS:
                self._retire(slot)

    def _holds_resources(self, slot: _Slot) -> bool:
        return slot.warm and (self.reuses_actors or not slot.free)

    def _retire(self, slot: _Slot) -> None:
        """Close a slot that the cluster has no room for; its trial goes to another one."""
        slot.retired, waiting = True, not slot.free
        trial, tune_trial = slot.trial, slot.tune_trial
        slot.trial = slot.tune_trial = None
        if trial is None or not waiting:
            return
        for queue in (self._starting, self._resuming):
            if slot in queue:
                queue.remove(slot)
        if tune_trial is not None:
            self._live.pop(trial.number, None)
            self._withdrawn.append(tune_trial)
        self.search.withdraw(trial.number, f"the cluster has no room for slot {slot.index} now")

    def _wait_for_nodes(self, slots: int) -> None:
        """Where the cluster holds no trial at all, hope for a while that nodes come."""
        now = time.monotonic()
        if slots:
            self._without_since = None
        elif self._without_since is None:
            self._without_since = now
            self._warn(
                f"no node can hold a trial now: waiting {PATIENCE_SECONDS / 60:.0f} min for one to "
                "join"
            )
        elif now - self._without_since > PATIENCE_SECONDS:
            minutes = PATIENCE_SECONDS / 60
            self.broken = f"for {minutes:.0f} min there was no node that could hold a trial"

    def withdrawn(self) -> list[TuneTrial]:
        """Tune trials to be stopped, as their slot is no more; each is told once."""
        found, self._withdrawn = self._withdrawn, []
        return found

    def _resources(self, slot: _Slot) -> SlotResources:
        return SlotResources(self.bundles, slot.index, self._placement.upper())

    def start_next(self, trial_id: str) -> Trial | None:
        """A trial that needs a new Tune trial, from now on known by ``trial_id``."""
        if not self._starting:
            return None
        slot = self._starting.pop(0)
        assert slot.trial is not None
        self._by_id[trial_id], self._trials[trial_id] = slot, slot.trial
        return slot.trial

    def added(self, tune_trial: TuneTrial) -> None:
        """Put a new Tune trial on its slot, with the checkpoint that it goes on from."""
        slot = self._by_id.pop(tune_trial.trial_id, None)
        if slot is None:  # Tune retries it by itself, after a preemption
            return
        assert slot.trial is not None
        slot.tune_trial = self._live[slot.trial.number] = tune_trial
        tune_trial.update_resources(self._resources(slot))
        if slot.trial.checkpoint:
            self._filesystem = tune_trial.storage.storage_filesystem
            epoch, path = slot.trial.checkpoint
            checkpoint = Checkpoint(path, filesystem=self._filesystem)
            tune_trial.on_checkpoint(_TrainingResult(checkpoint, {"training_iteration": epoch}))

    def resume_next(self) -> TuneTrial | None:
        """A paused Tune trial that is due to go on, once its checkpoint is saved."""
        for slot in list(self._resuming):
            assert slot.trial is not None
            tune_trial = self._live.get(slot.trial.number)
            if tune_trial is None:  # lost while it was saved: the search queues it anew
                self._resuming.remove(slot)
                slot.trial = None
            elif tune_trial.status == TuneTrial.PAUSED:
                self._resuming.remove(slot)
                for left in self._slots:
                    if left.tune_trial is tune_trial:
                        left.trial = left.tune_trial = None
                slot.tune_trial = tune_trial
                tune_trial.update_resources(self._resources(slot))
                return tune_trial
        return None

    def unwanted(self) -> list[TuneTrial]:
        """Paused Tune trials that will never go on."""
        if self.search.finished:
            self.search.finish()
        return [
            tune_trial
            for number, tune_trial in self._live.items()
            if tune_trial.status == TuneTrial.PAUSED
            and self.search.trials[number].status is Status.STOPPED
        ]

    # -- what trials tell ------------------------------------------------------------

    def started(self, tune_trial: TuneTrial) -> None:
        """A Tune trial has begun on its actor."""
        self.actors.add(tune_trial.temporary_state.ray_actor._actor_id.hex())  # noqa: SLF001
        if slot := self._slot_of(tune_trial):
            slot.warm = True

    def reported(self, tune_trial: TuneTrial, result: Mapping[str, Any], *, ended: bool) -> str:
        """Pass a result on; ``ended`` where the trainable said by itself that it is done."""
        self._losses = 0
        trial = self.trial_of(tune_trial)
        if failure := _below(result, "failure/"):
            if is_full(failure["message"]):
                self._count_unsaved(failure)
            self.search.fail(trial.number, failure)
            return str(TrialScheduler.STOP)
        metrics = _metrics(result)
        epoch = int(result["training_iteration"])
        if self.search.metric not in metrics:
            names = list(filter(_by_the_task, metrics))
            hint = near(self.search.metric, names) if names else "it reports nothing"
            self.problem = UserError(
                f"search.metric is {self.search.metric!r}, which the trainable does not report; "
                f"{hint}"
            )
            self.search.fail(trial.number, {"type": "NoMetric", "message": str(self.problem)})
            self.search.halt(str(self.problem))
            return str(TrialScheduler.STOP)
        decision = DECISIONS[self.search.report(trial.number, epoch, metrics, ended=ended)]
        if result.get(NODE_LEAVES) and (slot := self._slot_of(tune_trial)):
            slot.leaving = True
            if decision == TrialScheduler.CONTINUE:  # once its state is saved, it goes on elsewhere
                return str(TrialScheduler.STOP)
        return str(decision)

    def leaves(self, index: int) -> bool:
        """Whether the process of a slot is used no more; it is told once, and forgotten."""
        slot = self._slots[index]
        leaving, slot.leaving = slot.leaving, False
        slot.warm = slot.warm and not leaving
        return leaving

    def left(self, tune_trial: TuneTrial) -> None:
        """A Tune trial has ended well, or was withdrawn before it began."""
        if self._live.get(self.trial_of(tune_trial).number) is not tune_trial:
            return
        trial, slot = self.trial_of(tune_trial), self._slot_of(tune_trial)
        self._live.pop(trial.number, None)
        if trial.status is Status.RUNNING and slot and slot.leaving:
            self.search.withdraw(trial.number, "a node of its slot is to go")
        else:
            self._delete(self.search.close(trial.number))

    def erred(self, tune_trial: TuneTrial) -> None:
        """Note why a Tune trial fails, and its actor with it; :meth:`failed` tells if for good."""
        if slot := self._slot_of(tune_trial):
            slot.warm = slot.leaving = False
        self._errors[tune_trial.trial_id] = _read_error(tune_trial)

    def failed(self, trial_id: str) -> None:
        """A Tune trial has failed for good: the fault of its configuration, or a lost process."""
        trial = self._trials[trial_id]
        self._live.pop(trial.number, None)
        lost, error = self._errors.pop(trial_id, (True, {"type": "Lost", "message": "no reason"}))
        if _is_of_the_storage(error):
            self._count_unsaved(error)
            self.search.withdraw(trial.number, f"its checkpoint was not saved: {error['message']}")
            return
        if error["type"] == WornOutError.__name__:
            self.search.replace(trial.number, error["message"])
        elif error["type"] == DamagedCheckpointError.__name__:
            self.search.damaged(trial.number, error)
        elif lost:
            self.search.interrupt(trial.number, error)
            self._count_loss(error)
        else:
            self.search.fail(trial.number, error)

    def _count_unsaved(self, error: Mapping[str, Any]) -> None:
        """End the run where no trial can save its state: the fault of none of them."""
        self._unsaved += 1
        full = is_full(error["message"])
        if full or self._unsaved > UNSAVED * self.slots:
            where = "a disk is full" if full else "the storage does not take it"
            reason = " ".join(error["message"].split())[:300]
            raise StorageError(f"a checkpoint could not be saved, {where}: {reason}")

    def _count_loss(self, error: Mapping[str, Any]) -> None:
        """End the run where the cluster keeps losing processes and nothing comes of it."""
        self._losses += 1
        if self._losses >= (self.search.max_faults + 1) * (self.slots + 1):
            self.broken = (
                f"{self._losses} processes were lost in a row, with no epoch finished in between, "
                f"the last with {error['type']}: {error['message']}"
            )

    def saved(self, tune_trial: TuneTrial, checkpoint: Checkpoint) -> None:
        """A checkpoint of the latest result lies in the storage."""
        epoch = int(tune_trial.last_result.get("training_iteration", 0))
        number, size = self.trial_of(tune_trial).number, _bytes(checkpoint)
        self._unsaved, self._filesystem = 0, checkpoint.filesystem
        self._delete(self.search.checkpointed(number, epoch, checkpoint.path, size))

    def _delete(self, paths: list[str]) -> None:
        for path in paths:
            self._discard(partial(_delete_folder, self._filesystem, path))


class SearchAdapter(Searcher):  # type: ignore[misc]
    """Tune's Searcher: starts trials, and hears of those that failed."""

    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A configuration for a free slot; None while there is none; FINISHED at the end."""
        self._bridge.fill_slots()
        if self._bridge.broken:
            return str(Searcher.FINISHED)
        if trial := self._bridge.start_next(trial_id):
            return self._bridge.make_config(trial)
        return str(Searcher.FINISHED) if self._bridge.search.finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Hear of final failures; good ends come through the scheduler, with their results."""
        del result
        if error:
            self._bridge.failed(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """The journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """The journal has it all."""


class SchedulerAdapter(TrialScheduler):  # type: ignore[misc]
    """Tune's TrialScheduler: passes results on and resumes what the search promotes."""

    _supports_buffered_results = False

    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Put the trial on its slot, before Tune looks for an actor for it."""
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        if not isinstance(controller._actor_cache, WarmActors):  # noqa: SLF001
            # Tune's own drops warm actors
            controller._actor_cache = WarmActors(self._bridge.leaves)  # noqa: SLF001
        self._bridge.reuses_actors = controller._reuse_actors  # noqa: SLF001
        self._bridge.added(trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """What the search decides."""
        del tune_controller
        return self._bridge.reported(trial, result, ended=False)

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """The end of a running trial, with its last result: new, where the trainable was done."""
        del tune_controller
        if result.get("training_iteration"):
            self._bridge.reported(trial, result, ended=True)
        self._bridge.left(trial)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Note the reason."""
        del tune_controller
        self._bridge.erred(trial)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A paused trial was stopped."""
        del tune_controller
        self._bridge.left(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """A promoted trial. Tune starts pending ones without asking."""
        _forget_ended(getattr(tune_controller, "_tune_controller", tune_controller))
        for trial in self._bridge.unwanted():
            tune_controller.stop_trial(trial)
        self._bridge.fill_slots()
        if self._bridge.broken:
            tune_controller.request_stop_experiment()
            return None
        for trial in self._bridge.withdrawn():
            _withdraw(tune_controller, trial)
        return self._bridge.resume_next()

    def debug_string(self) -> str:
        """Nothing: the console reads the search."""
        return ""


class TrialWatcher(Callback):  # type: ignore[misc]
    """Tells the search of checkpoints, and counts the actors that trials were started on."""

    def __init__(self, bridge: TuneBridge) -> None:
        self._bridge = bridge

    def setup(self, *args: Any, **info: Any) -> None:
        """Tune has set its handler of Ctrl-C."""
        del args, info
        _tell_of_ctrl_c(self._bridge)

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """The trial has an actor, new or reused."""
        del iteration, trials, info
        self._bridge.started(trial)

    def on_checkpoint(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        checkpoint: Checkpoint,
        **info: Any,
    ) -> None:
        """Journal the checkpoint and delete those that it makes needless."""
        del iteration, trials, info
        self._bridge.saved(trial, checkpoint)


def _tell_of_ctrl_c(bridge: TuneBridge) -> None:
    """Have Tune's handler of Ctrl-C, which ends the search in silence, say so and be noted."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():  # where Tune sets none
        return
    if not callable(handler) or handler is signal.default_int_handler:  # none of Tune's
        return

    def told(number: int, frame: FrameType | None) -> None:
        bridge.stopped = True
        with suppress(RuntimeError):  # no thread can be started; a print may be what it broke into
            threading.Thread(target=bridge.say, args=(STOPPING,), daemon=True).start()
        handler(number, frame)

    signal.signal(signal.SIGINT, told)


def _forget_ended(controller: Any) -> None:
    """Drop what Tune keeps of trials that are over: 50 KB each, and a snapshot of all at the end.

    While others live, for Tune reads its snapshot where no trial is left.
    """
    ended = controller._stopped_trials | controller._failed_trials  # noqa: SLF001
    if not ended or not controller._live_trials - ended:  # noqa: SLF001
        return
    controller._live_trials -= ended  # noqa: SLF001 - Tune leaves those in it that failed
    controller._trials[:] = [t for t in controller._trials if t not in ended]  # noqa: SLF001
    controller._trials_to_cache -= ended  # noqa: SLF001
    for trial in ended:
        controller._trial_metadata.pop(trial.trial_id, None)  # noqa: SLF001
    controller._stopped_trials.clear()  # noqa: SLF001
    controller._failed_trials.clear()  # noqa: SLF001


def _withdraw(tune_controller: Any, trial: TuneTrial) -> None:
    """Stop a pending trial and give up what it waits for: a placement group, or an actor in it."""
    controller = getattr(tune_controller, "_tune_controller", tune_controller)
    actor = controller._trial_to_actor.get(trial)  # noqa: SLF001
    controller.stop_trial(trial)
    manager = controller._actor_manager  # noqa: SLF001
    if actor is not None and manager.is_actor_started(actor):  # in creation: it may not come up
        manager.remove_actor(actor, kill=True)


def _metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that the trainable reported, and the seconds that the epoch took."""
    plain = {name: value.item() if _is_scalar(value) else value for name, value in result.items()}
    numbers = {
        name: float(value) if isinstance(value, float) else int(value)
        for name, value in plain.items()
        if isinstance(value, bool | int | float)
        and name not in AUTOFILLED
        and not name.startswith("config/")
    }
    return {**numbers, SECONDS: round(float(result.get("time_this_iter_s") or 0.0), 3)}


def _by_the_task(metric: str) -> bool:
    """Whether the Task itself reports it."""
    ours = MEMORY_METRICS | LOGGING_METRICS | MICRO_BATCH_METRICS | {SECONDS}
    return metric not in ours and not metric.startswith(GPU_PREFIX)


def _delete_folder(filesystem: FileSystem, path: str) -> None:
    with suppress(FileNotFoundError):  # by hand, or by an attempt whose answer was lost
        filesystem.delete_dir(path)


def _bytes(checkpoint: Checkpoint) -> int:
    """What a checkpoint takes in the storage."""
    files = checkpoint.filesystem.get_file_info(FileSelector(checkpoint.path, recursive=True))
    return sum(file.size or 0 for file in files)


def _is_of_the_storage(error: Mapping[str, Any]) -> bool:
    """Whether a trial failed as its checkpoint was written, by no fault of its own."""
    return "persist_current_checkpoint" in error.get("traceback", "") or is_full(error["message"])


def _is_scalar(value: Any) -> bool:
    """Whether it is a number of numpy or torch."""
    return hasattr(value, "item") and getattr(value, "ndim", 1) == 0


def _below(result: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The nested dict that Tune has flattened."""
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}


def _read_error(tune_trial: TuneTrial) -> tuple[bool, dict[str, Any]]:
    """Whether the process was lost, and what there is to say. Tune wrote the file a moment ago."""
    try:
        error = pickle.loads(Path(tune_trial.pickled_error_file).read_bytes())  # noqa: S301
    except Exception as unreadable:  # noqa: BLE001 - an error that cannot be unpickled is one too
        return True, {"type": "Unknown", "message": f"the trial failed ({unreadable})"}
    cause = error.cause if isinstance(error, RayTaskError) else error
    lost = isinstance(cause, RankLostError) or not isinstance(error, RayTaskError)
    text = str(error).strip()
    message = str(cause).strip() or type(cause).__name__
    return lost, {"type": type(cause).__name__, "message": message, "traceback": text}


@contextmanager
def in_idle_workers() -> Iterator[None]:
    """Have trials start in workers that are up, not in new ones.

    Ray has a worker run what wants the environment it was started with. Tune asks for variables of
    its own, which the workers have where :func:`tuner.cluster.cluster` has started the cluster.
    """
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = before
