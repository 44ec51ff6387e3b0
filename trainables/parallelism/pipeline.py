"""A pipeline: each rank holds a part of the network, and micro-batches go from one to the next.

While a rank works on one micro-batch, the others work on those before and after it: one forward,
one backward (Narayanan et al. 2021, arXiv 2104.04473), by torch.distributed.pipelining, which takes
half a second to import.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainables.parallelism.fsdp import DIVIDED_ONCE, SCALED, refuse_one_rank
from trainables.parallelism.parallelism import Divisible, Limit, Losses, Parallelism
from trainables.task import Context

PARTS_A_RANK = 2
"""Micro-batches of a batch, for each rank, where nothing else is said. With R ranks and M of them a
rank waits (R - 1) / (M + R - 1) of the time (Huang et al. 2019, arXiv 1811.06965), so a third at
most; more would wait less, and BatchNorm would have the statistics of fewer examples."""


class Pipeline(Parallelism):
    """The network in parts, one a rank. The last is rank 0's: it has the logits, and reports."""

    probes = False  # a forward pass is the work of all ranks
    divides = cuts = True
    limits = (
        Limit("precision", ("fp32", "bf16"), SCALED),
        Limit("unfreeze_every", (None,), DIVIDED_ONCE),
        Limit("sync_batchnorm", (False,), "each layer is on one rank; leave it out"),
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._schedules: dict[tuple[bool, int, int], Any] = {}
        self._losses: Losses | None = None
        self._index = context.world_size - 1 - context.rank
        """Of this rank's part, from the input up."""

    @property
    def share(self) -> tuple[int, int]:
        """Every rank works on the whole batch."""
        return 0, 1

    @property
    def feeds(self) -> bool:
        """Whether this is where the pipeline begins: at the last rank."""
        return self._index == 0

    @classmethod
    def check_ranks(cls, name: str, batch_size: int, world_size: int) -> None:
        """There must be something to divide among, and something for each to do."""
        refuse_one_rank(name, world_size)
        if batch_size < world_size:
            raise ValueError(
                f"batch_size is {batch_size} and parallel is {name!r}: it must be at least "
                f"{world_size}, one for each rank, or all but some would wait"
            )

    def micro_batch(self, batch_size: int, wanted: int | None) -> int:
        """Small enough for all ranks to have something to do most of the time."""
        parts = PARTS_A_RANK * self.context.world_size
        return super().micro_batch(batch_size, wanted or math.ceil(batch_size / parts))

    def divide(self, divisible: Divisible) -> None:
        """Keep this rank's part alone in memory."""
        assert divisible.cut is not None
        assert divisible.example is not None
        parts = divisible.cut(self.context.world_size)
        stages = [_Stage(part, divisible) for part in parts]
        divisible.model.eval()
        self._ends = [divisible.example]
        for stage in stages:
            self._ends.append(_leaf(stage(self._ends[-1])))
        self.network = stages[self._index]
        _keep_only(divisible.model, self.network)

    def step(
        self,
        inputs: Tensor,
        targets: Tensor,
        micro_batch: int,
        losses: Losses,
        backward: Callable[[Tensor], None],  # noqa: ARG002 - the schedule has its own
    ) -> tuple[Tensor, Tensor]:
        """Rank 0 gets loss and logits, the others nothing."""
        count = len(targets)
        rows = self._rows(count, micro_batch)
        weights = (torch.arange(rows.numel()) < count).to(targets.device) / count
        wanted = [(targets[some], w) for some, w in zip(rows, weights.view_as(rows), strict=True)]
        self._losses = losses
        found: list[Tensor] = []
        logits = self._run(inputs, rows, target_mbs=wanted, losses=found)
        loss = torch.stack(found).sum().detach() if found else torch.zeros((), device=rows.device)
        return loss, logits[:count]

    def forward(self, inputs: Tensor, count: int, micro_batch: int) -> Tensor:
        """Rank 0 gets the logits, the others none."""
        rows = self._rows(count, micro_batch)
        return self._run(inputs, rows)[:count]

    def evaluated_at_once(self, micro_batch: int) -> int:
        """So many that all ranks work most of the time."""
        return PARTS_A_RANK * self.context.world_size * micro_batch

    def agreed(self, values: Tensor) -> Tensor:
        """Those of the rank that feeds."""
        told = [values.cpu()]
        dist.broadcast_object_list(told, self.context.world_size - 1, device=self.context.device)
        return told[0].to(self.context.device)

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> None:
        """By the norm over all parts."""
        trained = list(parameters)
        gradients = [p.grad for p in trained if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).to(self.context.device)
        total = self.context.sum(norm.square()).sqrt()
        nn.utils.clip_grads_with_norm_(trained, most, total)

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """Each rank sends what it holds, a tensor at a time: rank 0's GPU has no room for all."""
        context = self.context
        outlines: list[Any] | None = [None] * context.world_size if context.rank == 0 else None
        dist.gather_object(_outline(state), outlines)
        if outlines is None:
            self._send(state)
            return {}
        others = [self._received(outlines[rank], rank) for rank in range(1, context.world_size)]
        merged: dict[str, Any] = _merged([_on_host(state), *others])
        return merged

    def _send(self, state: Any) -> None:
        if isinstance(state, dict):
            for value in state.values():
                self._send(value)
        elif isinstance(state, Tensor):
            dist.send(state.to(self.context.device).contiguous(), 0)

    def _received(self, outline: Any, rank: int) -> Any:
        """What ``rank`` sends, in the order of its outline."""
        if isinstance(outline, dict):
            return {key: self._received(value, rank) for key, value in outline.items()}
        if not isinstance(outline, _Outline):
            return outline
        tensor = torch.empty(outline.shape, dtype=outline.dtype, device=self.context.device)
        dist.recv(tensor, rank)
        return tensor.cpu()

    def _rows(self, count: int, micro_batch: int) -> Tensor:
        """Which rows of a batch are in each micro-batch, (parts, size).

        All are of one size, as the ranks have set up room for it: the last row fills up. A single
        row is of no use to BatchNorm.
        """
        parts = max(math.ceil(count / micro_batch), self.context.world_size)
        size = max(math.ceil(count / parts), min(2, micro_batch))
        rows = torch.arange(parts * size, device=self.context.device).clamp_(max=count - 1)
        return rows.view(parts, size)

    def _run(self, inputs: Tensor, rows: Tensor, **targets: Any) -> Tensor:
        """Put the rows of ``inputs`` through; the logits, (parts * size, classes) on rank 0.

        Raises:
            Exception: what this rank's part has raised, as it was.

        """
        fed = [(inputs[some],) if self.feeds else () for some in rows]
        try:
            logits = self._schedule(bool(targets), *rows.shape).step(arg_mbs=fed, **targets)
        except RuntimeError as error:  # pipelining wraps it in one of its own
            raise _first_cause(error) from None
        return logits.detach() if logits is not None else torch.empty(0, 1, device=rows.device)

    def _schedule(self, trains: bool, parts: int, size: int) -> Any:
        """The order of work for batches cut like this; it is set up with the first of them."""
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

        key = trains, parts, size
        if key not in self._schedules:
            ranks, device = self.context.world_size, self.context.device
            # told what crosses between the parts, it need not try them on the first batch
            start, end = (_like(tensor, size) for tensor in self._ends[self._index :][:2])
            stage = PipelineStage(self.network, self._index, ranks, device, start, end)
            stage.stage_index_to_group_rank = {i: ranks - 1 - i for i in range(ranks)}
            self._schedules[key] = (
                Schedule1F1B(stage, parts, self._weighted_loss, scale_grads=False)
                if trains
                else ScheduleGPipe(stage, parts)
            )
        return self._schedules[key]

    def _weighted_loss(self, logits: Tensor, wanted: tuple[Tensor, Tensor]) -> Tensor:
        assert self._losses is not None
        targets, weights = wanted
        return (self._losses(logits.float(), targets) * weights).sum()


class _Stage(nn.Module):
    """A part of the network as the schedule calls it."""

    def __init__(self, part: nn.Module, divisible: Divisible) -> None:
        super().__init__()
        self.part = part
        self._layout, self._autocast = divisible.layout, divisible.autocast

    def forward(self, inputs: Tensor) -> Tensor:
        with self._autocast():  # here, as the schedule does the backward passes too
            outputs: Tensor = self.part(self._layout(inputs))
        return outputs.contiguous()


def _leaf(tensor: Tensor) -> Tensor:
    """``tensor`` without what made it."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _like(tensor: Tensor, count: int) -> Tensor:
    """What tells of ``count`` rows like those of ``tensor``; it takes no memory."""
    shape = count, *tensor.shape[1:]
    trained = tensor.requires_grad
    return torch.empty(shape, dtype=tensor.dtype, device="meta", requires_grad=trained)


def _keep_only(model: nn.Module, part: nn.Module) -> None:
    """Leave of ``model``'s tensors those of ``part``, and of the others the names."""
    kept = {id(tensor) for tensor in (*part.parameters(), *part.buffers())}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in kept:
                trained = parameter.requires_grad
                module.register_parameter(name, nn.Parameter(parameter.to("meta"), trained))
        for name, buffer in module.named_buffers(recurse=False):
            if id(buffer) not in kept:
                module._buffers[name] = buffer.to("meta")  # noqa: SLF001 - persistent as it was


class _Outline(NamedTuple):
    """Of a tensor that is to come."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def _outline(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _outline(value) for key, value in state.items()}
    return _Outline(tuple(state.shape), state.dtype) if isinstance(state, Tensor) else state


def _on_host(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _on_host(value) for key, value in state.items()}
    return state.cpu() if isinstance(state, Tensor) else state


def _merged(told: list[Any]) -> Any:
    """One of nested dicts; what is no dict is the first one's."""
    first = told[0]
    if not isinstance(first, dict):
        return first
    keys = sorted({key for own in told for key in own})
    return {key: _merged([own[key] for own in told if key in own]) for key in keys}


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
