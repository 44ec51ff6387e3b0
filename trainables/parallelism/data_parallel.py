"""DataParallel: one process, the network copied to all its GPUs anew in every forward pass."""

from torch import nn

from trainables.parallelism.ddp import Ddp
from trainables.parallelism.parallelism import Divisible, Limit


class DataParallel(Ddp):
    """One process over the trial's GPUs; the first also has what all of them give back."""

    one_process = True
    limits = (
        Limit("compile", (False,), "compiled code knows no copies of a network; use ddp"),
        Limit("sync_batchnorm", (False,), "it knows ranks, and here is one; use ddp"),
    )

    @classmethod
    def check_devices(cls, name: str, gpus: int) -> None:
        """Refuse a trial without at least two GPUs.

        Raises:
            ValueError: there are fewer.

        """
        if gpus < 2:
            raise ValueError(
                f"parallel is {name!r}, one process over two or more GPUs, but the trial has "
                f"{gpus}: give it GPUs (resources.gpus_per_trial), or use ddp"
            )

    @classmethod
    def check_ranks(cls, name: str, batch_size: int, world_size: int) -> None:
        """A batch is cut as it comes."""

    def divide(self, divisible: Divisible) -> None:
        """Wrap it at once: no rank waits for another.

        It is evaluated on the first GPU: copies would show what goes through them in any order.
        """
        super().divide(divisible)
        gpus = list(range(self.context.devices))
        self.network = self._wrapped = nn.DataParallel(divisible.network, device_ids=gpus)

    def connect(self) -> None:
        """There is one rank."""
