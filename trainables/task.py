"""What a user writes: a Task, and the Context it runs in. PyTorch only; nothing of Ray."""

import random
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, DistributedSampler

from trainables.event_log import EventLog
from trainables.memory import NOTHING_FITS, largest_fitting, remember_failure


@dataclass
class Context:
    """Where a Task runs: its rank, its device, and helpers that differ between 1 and N ranks.

    Every helper works with no process group too, so a Task runs unchanged in one plain process:
    ``MyTask(config, Context())``.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    max_epochs: int = 1
    """Epochs of a full trial: what a schedule spans, however early the trial stops."""
    epoch: int = 0
    """Epochs already finished."""
    final: bool = False
    """Train on the validation data too: this is the final fit, and the experiment asks for that."""
    cache_dir: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "tuner-cache")
    """Shared by all trials and ranks of a node, and kept between runs."""
    cache_bytes: int = 20 * 10**9
    """The most that ``cache_dir`` may hold."""
    event_log: EventLog | None = None
    """What rank 0 logs to; None on the other ranks, and outside of a run."""
    devices: int = 1
    """Devices of the same kind that are this rank's own; ``device`` is the first."""
    threads: int = 1
    """CPU threads that are this rank's own."""
    shares_device: bool = False
    """Other trials use the same GPU, so what fits now may not fit later."""
    probes: bool = False
    """Whether :meth:`micro_batch` tries what fits: on GPUs, where running out can be caught."""
    micro_batch_limit: int | None = None
    """The most that goes through the model at once since this trial has run out of memory."""
    oom_recoveries: int = field(default=0, init=False)
    """Times in this epoch that memory was too small and a smaller micro-batch was taken."""
    rearranged: bool = field(default=False, init=False)
    """:meth:`micro_batch` was asked since this was last looked at: other memory is needed now."""
    used_micro_batch: int | None = field(default=None, init=False)
    """What :meth:`micro_batch` has answered; None where the Task has not asked."""
    _samplers: list[DistributedSampler[Any]] = field(default_factory=list, repr=False)

    @property
    def writer(self) -> Any:
        """A ``tensorboardX.SummaryWriter`` on rank 0 of a run, ``None`` elsewhere.

        Its file is begun on first use. What takes long is better written with :meth:`log`.
        """
        return self.event_log.writer if self.event_log is not None else None

    def log(self, kind: str, write: Callable[[Any], None]) -> None:
        """Write to TensorBoard, on rank 0 of a run and where there is time for it.

        Args:
            kind: what is written; one of the Task's ``logs``. An experiment can skip it, and what
                takes long skips epochs, so that ``logging.max_share`` holds.
            write: called with a ``tensorboardX.SummaryWriter``, or not at all: no collectives.
                What it raises is a warning in the worker's log.

        """
        if self.event_log is not None:
            self.event_log.log(kind, write)

    def wants(self, kind: str) -> bool:
        """Whether :meth:`log` will write ``kind`` in this epoch, before it is collected.

        It differs between ranks: what depends on it must not hold collectives.
        """
        return self.event_log is not None and self.event_log.wants(kind)

    def parallel(self, model: nn.Module, **options: Any) -> nn.Module:
        """Move ``model`` to the device and, where there are several ranks, wrap it in DDP.

        ``options`` go to :class:`torch.nn.parallel.DistributedDataParallel`. A model with nothing
        to train is returned unwrapped: DDP refuses it.
        """
        model = model.to(self.device)
        if self.world_size == 1 or not any(p.requires_grad for p in model.parameters()):
            return model
        if self.device.type == "cuda":
            options.setdefault("device_ids", [self.device])
        return DistributedDataParallel(model, **options)

    def sampler(
        self,
        dataset: Dataset[Any],
        *,
        shuffle: bool = True,
        share: tuple[int, int] | None = None,
    ) -> DistributedSampler[Any]:
        """A training sampler: this rank's share of ``dataset``, reshuffled every epoch.

        It pads the last round so that every rank takes the same number of steps; for evaluation,
        where each example must count once, use :meth:`shard`. ``share``: which of how many this
        rank's is, where there is not one a rank.
        """
        index, shares = share or (self.rank, self.world_size)
        sampler: DistributedSampler[Any] = DistributedSampler(
            dataset, shares, index, shuffle=shuffle, seed=self.seed
        )
        sampler.set_epoch(self.epoch)
        self._samplers.append(sampler)
        return sampler

    def shard(self, length: int) -> range:
        """The indices out of ``length`` that this rank evaluates; each falls to exactly one."""
        return range(self.rank, length, self.world_size)

    def local_batch_size(self, batch_size: int) -> int:
        """The part of the effective (global) ``batch_size``.

        Raises:
            ValueError: ``batch_size`` does not divide evenly over the ranks.

        """
        if batch_size % self.world_size:
            raise ValueError(
                f"batch_size is {batch_size}, but the trial has {self.world_size} ranks: it must "
                f"be a multiple of {self.world_size}"
            )
        return batch_size // self.world_size

    def micro_batch(
        self,
        batch_size: int,
        attempt: Callable[[int], None] | None = None,
        kind: Hashable | None = None,
    ) -> int:
        """How many of this rank's ``batch_size`` examples go through the model at once.

        All of them, where they fit into memory; a Task adds up the gradients of the parts. A Task
        that takes this number is recovered when it runs out of memory in the midst of an epoch: it
        is built anew with the state that the epoch began with, and this number is a half of what it
        was. All ranks get the same number. It is reported as ``micro_batch``.

        Args:
            batch_size: this rank's share of a batch.
            attempt: puts so many examples through the model, forward and backward, without
                collectives, and leaves no trace. On GPUs it is tried on before the first epoch.
            kind: what decides how much memory an example needs: the answer is remembered for other
                trials of the same kind; None: it is not. Without an attempt, it is what has failed
                in the midst of an epoch.

        Raises:
            torch.OutOfMemoryError: not even one example fits, on some rank.

        """
        if kind is not None:
            gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
            kind = None if self.shares_device else (kind, gpu)
        wanted = min(batch_size, self.micro_batch_limit or batch_size)
        found, failures = wanted, 0
        if self.micro_batch_limit and kind is not None:
            remember_failure(kind, 2 * self.micro_batch_limit)
        if self.probes and (attempt is not None or kind is not None):
            found, failures = largest_fitting(wanted, attempt or _untried, kind)
        agreed = self.min(found)
        if not agreed:
            raise torch.OutOfMemoryError(NOTHING_FITS)
        self.oom_recoveries += self.max(failures)
        self.used_micro_batch, self.rearranged = agreed, True
        return agreed

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of each rank, in the order of the ranks; anything that can be pickled."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.max(0)

    def check_group(self) -> None:
        """Raise if another rank has failed: long work without collectives would not hear of it.

        Raises:
            RuntimeError: the process group is gone.

        """
        if self.world_size > 1 and not dist.is_initialized():
            raise RuntimeError("the process group has not been initialized: another rank failed")

    @cached_property
    def cache_ranks(self) -> tuple[int, list[int]]:
        """Of the ranks with this rank's ``cache_dir``: the first, and those on its host.

        Whether they share it is seen by files that they leave there. All ranks ask at once.
        """
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        token = self.cache_dir / f".rank-{uuid4().hex}"
        token.touch()
        told = self.gather((token.name, socket.gethostname()))
        sharing = [r for r, (name, _) in enumerate(told) if (self.cache_dir / name).exists()]
        self.barrier()
        token.unlink()
        first = sharing[0]
        return first, [rank for rank in sharing if told[rank][1] == told[first][1]]

    def min(self, value: int) -> int:
        """The least over all ranks."""
        return -self.max(-value)

    def max(self, value: int) -> int:
        """The most over all ranks."""
        if self.world_size == 1:
            return value
        every = torch.tensor(value, device=self.device)
        dist.all_reduce(every, dist.ReduceOp.MAX)
        return int(every)

    def sum(self, values: Tensor) -> Tensor:
        """Add ``values`` (any shape) over all ranks; every rank gets the result."""
        if self.world_size > 1:
            values = values.to(self.device, copy=True)
            dist.all_reduce(values)
        return values

    def mean(self, total: float | Tensor, count: float) -> float:
        """The mean over all ranks of what sums to ``total`` over ``count`` items here."""
        local = torch.tensor([float(total), float(count)], dtype=torch.float64)
        if self.device.type == "mps":  # no float64 there
            local = local.float()
        summed, counted = self.sum(local).tolist()
        return summed / counted if counted else float("nan")

    def start_epoch(self, epoch: int) -> None:
        """Seed every random generator from (seed, epoch, rank) and reshuffle the samplers.

        Called before each epoch. A resumed trial therefore draws what it would have drawn, and a
        checkpoint needs no generator state.
        """
        self.epoch = epoch
        if self.event_log is not None:
            self.event_log.start_epoch(epoch)
        seed = int(
            np.random.SeedSequence([self.seed, epoch, self.rank]).generate_state(1, np.uint32)[0]
        )
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - a Task may draw from numpy's global generator
        torch.manual_seed(seed)
        for sampler in self._samplers:
            sampler.set_epoch(epoch)

    def close(self) -> None:
        """Close the event log, where there is one."""
        if self.event_log is not None:
            self.event_log.close()


class Task(ABC):
    """A training task: build in ``__init__``, then one ``train_epoch`` and ``evaluate`` an epoch.

    Every rank holds an instance and calls the same methods in the same order. Metrics are plain
    numbers; those that rank 0 returns are reported, so reduce them with ``context.mean``.

    A Task may define ``Config``, a pydantic model: it is then built from the experiment's settings
    and the trial's hyperparameters, and passed as ``config``. Without one, ``config`` is a dict.
    """

    Config: ClassVar[type[Any] | None] = None
    logs: ClassVar[tuple[str, ...]] = ()
    """The kinds that it writes with ``context.log``."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.context = context

    @abstractmethod
    def train_epoch(self) -> Mapping[str, float]:
        """Train for one epoch; return metrics."""

    @abstractmethod
    def evaluate(self) -> Mapping[str, float]:
        """Evaluate after an epoch; return metrics, among them the one that is searched on."""

    def test(self) -> Mapping[str, float]:
        """Score on data kept for the end; an empty mapping where there are none.

        Called on one rank, once, for the best model of the whole run.
        """
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that training changed: tensors, numbers, strings, and dicts and lists of them.

        Called on every rank at once, so it may gather what they hold; rank 0's is saved.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned. Called on every rank."""

    def close(self) -> None:  # noqa: B027 - most Tasks hold nothing beyond memory
        """Release files and processes. The ranks themselves stay for the next trial."""

    @classmethod
    def one_process(cls, config: Any, gpus: int) -> bool:  # noqa: ARG003 - for those who override it
        """Whether one rank is to have all GPUs of a trial, ``gpus``; else there is a rank a GPU.

        It must be the same for all configurations of a search, whose trials run on the same ranks.

        Raises:
            ValueError: they are too few.

        """
        return False

    @classmethod
    def has_test(cls, config: Any) -> bool:  # noqa: ARG003 - for those who override it
        """Whether :meth:`test` has data to score on; asked before a worker is started for it."""
        return cls.test is not Task.test

    @classmethod
    def kept_bytes(cls) -> int:
        """Bytes of memory that this process keeps for later trials on purpose.

        What else a trial leaves behind is taken for a leak, and its process is replaced.
        """
        return 0

    @classmethod  # noqa: B027 - optional
    def check(cls, config: Any, world_size: int) -> None:
        """Refuse, before anything starts, a configuration that cannot run.

        Raises:
            ValueError: with a message that names the key, the value and what must hold.

        """

    @classmethod  # noqa: B027 - optional
    def export(cls, config: Any, state: dict[str, Any], directory: Path) -> None:
        """Write into ``directory`` what :meth:`load` needs to predict.

        ``state`` is the best trial's :meth:`state_dict`. The default writes nothing more than what
        is there already: the checkpoint and the configuration.
        """

    @classmethod
    def load(cls, directory: Path) -> nn.Module:
        """Load the model that :meth:`export` wrote, in eval mode.

        Raises:
            ValueError: this Task exports no model.

        """
        raise ValueError(f"{cls.__name__} defines no load(): {directory} holds only its checkpoint")


def _untried(_: int) -> None:
    """Stands for an attempt, where only the midst of an epoch tells."""
