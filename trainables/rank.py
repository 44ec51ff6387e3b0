"""One rank of a trial: a Task in a process that outlives it. Nothing of Ray."""

import logging
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from trainables.event_log import Account, EventLog
from trainables.gpu_monitor import GpuMonitor, gpu_uuid
from trainables.memory import NOTHING_FITS, MemoryWatch, is_out_of_memory
from trainables.process_group import abort_group, is_group_error, join_group, join_store
from trainables.task import Context, Task

logger = logging.getLogger(__name__)

MICRO_BATCH, OOM_RECOVERIES = "micro_batch", "oom_recoveries"
MICRO_BATCH_METRICS = frozenset({MICRO_BATCH, OOM_RECOVERIES})
"""What :meth:`Rank.run_epoch` reports of a Task that asks for its micro-batch."""


@dataclass(frozen=True)
class TrialSpec:
    """All that a rank needs to know of a trial; travels to every rank as it is."""

    task: str
    """``package.module:Class`` of the Task."""
    config: dict[str, Any]
    seed: int
    max_epochs: int
    cache_dir: str
    cache_bytes: int = 20 * 10**9
    log_dir: str | None = None
    log_skip: list[str] = field(default_factory=list)
    log_share: float = 0.02
    final: bool = False


@dataclass(frozen=True)
class Failure:
    """An exception as a value, so that it can travel and be weighed against others."""

    type: str
    message: str
    traceback: str
    rank: int
    is_group_error: bool = False
    """A collective broke: another rank's failure is the likely cause."""
    micro_batch: int | None = None
    """What did not fit into the memory, where the Task can do with less at once."""


@dataclass(frozen=True)
class Outcome:
    """What a call on one rank came to."""

    value: Any = None
    failure: Failure | None = None


class MemoryNotFreedError(RuntimeError):
    """Trials have left memory behind in this process; the next one needs a new process."""


class Rank:
    """The same small set of calls on every rank; :meth:`call` turns exceptions into outcomes."""

    def __init__(self, rank: int, world_size: int, *, gpus: float, threads: int) -> None:
        if not gpus:  # Ray leaves every GPU visible to an actor that asked for none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.rank, self.world_size, self.threads = rank, world_size, threads
        self.device = torch.device("cuda", 0) if gpus else torch.device("cpu")
        self._devices = max(1, int(gpus))
        self._task: Task | None = None
        self._context: Context | None = None
        self._shares_gpu = 0 < gpus < 1
        self._memory = MemoryWatch(self.device)
        self._used = False
        self._log_account = Account()

    def call(self, method: str, *args: Any) -> Outcome:
        """Run one of the methods below; an exception leaves the group and comes back as a value."""
        torch.set_num_threads(self.threads)  # a setting of the calling thread
        try:
            return Outcome(getattr(self, method)(*args))
        except Exception as error:  # noqa: BLE001 - a Task may raise anything
            abort_group()  # first of all: the others must not wait for this rank
            return Outcome(failure=self._failure(error))

    def _failure(self, error: Exception) -> Failure:
        """``error`` as a value."""
        message, micro_batch = str(error) or type(error).__name__, None
        if self._context is not None and is_out_of_memory(error):
            micro_batch = self._context.used_micro_batch
        if micro_batch == 1:
            message = f"{NOTHING_FITS} ({message})"
        return Failure(
            type(error).__name__,
            message,
            traceback.format_exc(),
            self.rank,
            is_group_error(error),
            micro_batch,
        )

    def join(self, host: str, port: int) -> None:
        """Form the process group anew, with the rendezvous at ``host:port``."""
        join_group(join_store(host, port), self.rank, self.world_size, self.device)

    def build(
        self,
        spec: TrialSpec,
        state: Mapping[str, Any] | None,
        epoch: int,
        micro_batch_limit: int | None = None,
    ) -> None:
        """Replace the Task by that of ``spec``, going on from ``state`` after ``epoch`` epochs.

        Raises:
            MemoryNotFreedError: earlier Tasks have left too much memory behind.

        """
        self.close()
        task_class = import_task(spec.task)
        self._check_memory(task_class)
        self._memory.start_trial()
        self._context = Context(
            rank=self.rank,
            world_size=self.world_size,
            device=self.device,
            seed=spec.seed,
            max_epochs=spec.max_epochs,
            epoch=epoch,
            final=spec.final,
            cache_dir=Path(spec.cache_dir).expanduser(),  # the home of this node
            cache_bytes=spec.cache_bytes,
            event_log=self._open_log(spec),
            devices=self._devices,
            threads=self.threads,
            shares_device=self._shares_gpu,
            probes=self.device.type == "cuda",
            micro_batch_limit=micro_batch_limit,
        )
        self._context.start_epoch(epoch)
        self._task = task_class(build_config(task_class, spec.config), self._context)
        if state is not None:
            self._task.load_state_dict(dict(state))

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train and evaluate once; ``epoch`` counts from 0. Returns the metrics, as numbers."""
        assert self._task is not None
        assert self._context is not None
        self._context.start_epoch(epoch)
        with GpuMonitor(gpu_uuid(self.device)) as gpu:
            metrics = {**self._task.train_epoch(), **self._task.evaluate()}
        if self._context.used_micro_batch is not None:
            metrics[MICRO_BATCH] = self._context.used_micro_batch
            metrics[OOM_RECOVERIES] = self._context.oom_recoveries
            self._context.oom_recoveries = 0
        if self._context.rearranged:  # with more to train, more memory is no leak
            self._memory.start_series()
            self._context.rearranged = False
        if self._context.event_log is not None and getattr(self._task, "logs", None):
            metrics |= self._context.event_log.metrics()
        numbers = {name: _number(name, value) for name, value in metrics.items()}
        return {**numbers, **self._memory.epoch(), **gpu.figures(self.rank)}

    def _open_log(self, spec: TrialSpec) -> EventLog | None:
        """The trial's event log, on rank 0."""
        if self.rank or spec.log_dir is None:
            return None
        return EventLog(Path(spec.log_dir), spec.log_skip, spec.log_share, self._log_account)

    def test(self) -> dict[str, float]:
        """Score the Task on data kept for the end. Returns the metrics, as numbers."""
        assert self._task is not None
        return {name: _number(name, value) for name, value in self._task.test().items()}

    def state(self) -> dict[str, Any]:
        """The Task's state, on rank 0; the others help to gather it, and return nothing."""
        assert self._task is not None
        state = self._task.state_dict()
        return {} if self.rank else state

    def _check_memory(self, task_class: type[Task]) -> None:
        """Between two trials: refuse to go on where what earlier ones took has not come back."""
        first, self._used = not self._used, True
        kept_bytes = getattr(task_class, "kept_bytes", Task.kept_bytes)
        if not first and (left := self._memory.left_behind(kept_bytes())):
            raise MemoryNotFreedError(
                f"{left:.0f} MB have not come back after earlier trials on rank {self.rank}"
            )

    def close(self) -> None:
        """Let go of the Task; the process, its group and its caches stay."""
        task, self._task = self._task, None
        if self._context is not None:
            self._context.close()
            self._context = None
        if task is not None:
            try:
                task.close()
            except Exception:  # its trial is over, and must not fail the next one
                logger.exception("close() of a Task failed")
            del task
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def import_task(path: str) -> type[Task]:
    """The class that ``package.module:Class`` names.

    Raises:
        ValueError: there is no such module or class.

    """
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(import_module(module_name), class_name, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"trainable is {path!r}: cannot import {module_name!r} ({reason})"
        ) from error
    if not isinstance(found, type):
        raise ValueError(  # noqa: TRY004 - a wrong name, not a wrong type
            f"trainable is {path!r}: {module_name!r} defines no class {class_name!r}"
        )
    return found


def build_config(task_class: type[Task], values: Mapping[str, Any]) -> Any:
    """The Task's own Config from settings and hyperparameters, or the plain dict without one."""
    config_class = getattr(task_class, "Config", None)
    return dict(values) if config_class is None else config_class(**values)


def _number(name: str, value: Any) -> float:
    """A metric as a plain number: a tensor would keep its graph alive."""
    try:
        return int(value) if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"metric {name!r} is a {type(value).__name__}: metrics must be numbers"
        ) from None
