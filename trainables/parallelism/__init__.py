"""How the ranks of a trial share the work on one network: a way a module, behind one interface."""

from trainables.parallelism.data_parallel import DataParallel
from trainables.parallelism.ddp import Ddp
from trainables.parallelism.fsdp import Fsdp
from trainables.parallelism.parallelism import Divisible, Limit, Parallelism, local
from trainables.parallelism.pipeline import Pipeline
from trainables.task import Context

__all__ = ["WAYS", "Ddp", "Divisible", "Limit", "Parallelism", "arrange", "local"]

WAYS: dict[str, type[Parallelism]] = {
    "ddp": Ddp,
    "fsdp": Fsdp,
    "pipeline": Pipeline,
    "data_parallel": DataParallel,
}


def arrange(name: str, context: Context) -> Parallelism:
    """The way of this name; where there is one rank with one device, all are the same.

    Raises:
        ValueError: it is one process's alone, and there are several ranks.

    """
    if WAYS[name].one_process and context.world_size > 1:
        raise ValueError(
            f"parallel is {name!r}, which is one process's, but the trial has "
            f"{context.world_size} ranks: make it a setting, not a hyperparameter"
        )
    alone = context.world_size == 1 and context.devices <= 1
    return (Ddp if alone else WAYS[name])(context)
