"""Fully sharded data parallel: every rank keeps a slice of each weight and of its optimizer state.

Zhao et al. 2023 (arXiv 2304.11277); torch's fully_shard. What is imported late takes half a second
to import, and a trial on other ways need not wait for it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trainables.parallelism.ddp import Ddp
from trainables.parallelism.parallelism import Divisible, Limit

SCALED = "fp16 scales gradients, and they may overflow on one rank alone; use bf16 or ddp"
DIVIDED_ONCE = "the network is divided among the ranks once, as it is frozen then; use ddp"


class Fsdp(Ddp):
    """Blocks of the network, whole on a rank while they are used and in slices otherwise.

    Only the weights, their gradients and the optimizer's state are divided. Buffers are whole. The
    gradients of every part of a batch are cut up at once: to wait for the last would keep them all.
    """

    probes = False  # a forward pass is the work of all ranks
    divides = True
    limits = (
        Limit("precision", ("fp32", "bf16"), SCALED),
        Limit("unfreeze_every", (None,), DIVIDED_ONCE),
    )

    @classmethod
    def check_ranks(cls, name: str, batch_size: int, world_size: int) -> None:
        """There must be something to divide among."""
        refuse_one_rank(name, world_size)
        super().check_ranks(name, batch_size, world_size)

    def divide(self, divisible: Divisible) -> None:
        """Shard each block, and what is left of the network as one more."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        super().divide(divisible)
        self.network.to(memory_format=torch.contiguous_format)  # it takes no other
        mesh = init_device_mesh(self.context.device.type, (self.context.world_size,))
        for block in divisible.blocks:
            if not isinstance(block, nn.ModuleList | nn.ModuleDict):  # these have no forward
                fully_shard(block, mesh=mesh)
        sharded = fully_shard(self.network, mesh=mesh)
        assert isinstance(sharded, FSDPModule)
        self._sharded = sharded

    def connect(self) -> None:
        """It is connected by now."""

    def forward(self, inputs: Tensor, count: int, micro_batch: int) -> Tensor:
        """Leave nothing whole: other weights may be put in place of these before the next pass."""
        logits = super().forward(inputs, count, micro_batch)
        self._sharded.reshard()
        return logits

    def even(self, batches: list[list[int]]) -> list[list[int]]:
        """As many as the rank that has the most: weights are gathered for all at once."""
        missing = self.context.max(len(batches)) - len(batches)
        return [*batches, *([[0]] * missing)]

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """All ranks work; one tensor at a time is whole, and goes to the host on rank 0."""
        whole: dict[str, Any] = self._whole(state)
        return whole if self.context.rank == 0 else {}

    def place(self, like: Tensor, value: Tensor) -> Tensor:
        """The slice that ``like`` is; every rank has the whole."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return value
        whole = value.to(like.device)
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def _whole(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._whole(inner) for key, inner in value.items()}
        if hasattr(value, "full_tensor"):
            full = value.full_tensor()
            return full.cpu() if self.context.rank == 0 else None
        return value


def refuse_one_rank(name: str, world_size: int) -> None:
    """Refuse a trial of one rank.

    Raises:
        ValueError: there is one.

    """
    if world_size < 2:
        raise ValueError(
            f"parallel is {name!r}, which divides a network among ranks, but the trial has "
            f"{world_size}: give it more (resources.gpus_per_trial or workers_per_trial), or use "
            "ddp"
        )
