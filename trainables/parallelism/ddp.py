"""DistributedDataParallel: the whole network on every rank, gradients averaged as they come."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.parallelism.parallelism import Divisible, Losses, Parallelism
from trainables.task import Context


class Ddp(Parallelism):
    """The whole network on every rank; one rank does without DDP."""

    @classmethod
    def check_ranks(cls, name: str, batch_size: int, world_size: int) -> None:  # noqa: ARG003
        """A batch must divide evenly."""
        Context(world_size=world_size).local_batch_size(batch_size)

    def divide(self, divisible: Divisible) -> None:
        """Leave it whole."""
        self._divisible = divisible
        self.network = self._wrapped = divisible.network

    def connect(self) -> None:
        """Wrap it: from here on a backward pass is the work of all ranks."""
        self._wrapped = self.context.parallel(
            self.network, forward_sync_buffers=False, gradient_as_bucket_view=True
        )

    def step(
        self,
        inputs: Tensor,
        targets: Tensor,
        micro_batch: int,
        losses: Losses,
        backward: Callable[[Tensor], None],
    ) -> tuple[Tensor, Tensor]:
        """Part by part; gradients go between the ranks with the last one only."""
        count = math.ceil(len(inputs) / micro_batch)
        loss_sum, logits = torch.zeros((), device=inputs.device), []
        parts = zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True)
        for index, (some, some_targets) in enumerate(parts):
            with self._synchronised(index == count - 1):
                out = self._through(self._wrapped, some).float()
                loss = losses(out, some_targets).sum() / len(inputs)
                backward(loss)
            loss_sum += loss.detach()
            logits.append(out.detach())
        return loss_sum, torch.cat(logits)

    def forward(self, inputs: Tensor, count: int, micro_batch: int) -> Tensor:  # noqa: ARG002
        """Not through DDP, whose ranks would have to take the same number of batches."""
        return self._through(self._divisible.network, inputs)

    def _through(self, network: nn.Module, inputs: Tensor) -> Tensor:
        with self._divisible.autocast():
            logits: Tensor = network(inputs)
        return logits

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        unsynchronised: AbstractContextManager[None] = self._wrapped.no_sync()
        return unsynchronised
