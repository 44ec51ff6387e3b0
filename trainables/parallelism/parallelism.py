"""The interface of every way to share the work on one network among the ranks of a trial."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from trainables.task import Context

Losses = Callable[[Tensor, Tensor], Tensor]
"""From (n, classes) logits and their targets to (n,) losses."""


def _as_it_is(inputs: Tensor) -> Tensor:
    return inputs


@dataclass(frozen=True)
class Divisible:
    """A network, and where it can be taken apart."""

    model: nn.Module
    """The whole. What a rank does without goes to torch's meta device, and its names stay."""
    network: nn.Module
    """What is trained, from inputs to logits: the model, or the end of it that shares its modules.
    """
    blocks: Sequence[nn.Module] = ()
    """The modules that it is made of, one after the other: each is needed for a while only."""
    cut: Callable[[int], Sequence[nn.Module]] | None = None
    """Into so many parts that do, one after the other, what the network does."""
    example: Tensor | None = None
    """A few inputs of ``network``."""
    layout: Callable[[Tensor], Tensor] = _as_it_is
    """How a part's input is best laid out in memory."""
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The context of a forward pass."""


class Limit(NamedTuple):
    """A setting that a way does not take with every value."""

    key: str
    allowed: tuple[Any, ...]
    reason: str
    """Of the refusal, and what to do."""


class Parallelism(ABC):
    """A network on the ranks of a trial.

    Every rank holds an instance and calls the same methods in the same order: first
    :meth:`divide`, then, when the optimizer and all else is there, :meth:`connect`.
    """

    limits: ClassVar[tuple[Limit, ...]] = ()
    one_process: ClassVar[bool] = False
    """One rank is to have all the devices of the trial."""
    probes: ClassVar[bool] = True
    """A rank can put examples through ``network`` without the others."""
    divides: ClassVar[bool] = False
    """No rank has the whole network."""
    cuts: ClassVar[bool] = False
    """Each rank has a part of the network, from some layer to another."""
    network: nn.Module
    """What a rank puts its inputs through."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def share(self) -> tuple[int, int]:
        """Which part of every batch falls to this rank, and how many parts there are."""
        return self.context.rank, self.context.world_size

    @property
    def feeds(self) -> bool:
        """Whether the inputs of this rank's share are wanted from it."""
        return True

    @classmethod
    def check(cls, name: str, config: Any, world_size: int) -> None:
        """Refuse settings that do not go together.

        Raises:
            ValueError: naming the key, the value and the reason.

        """
        for key, allowed, reason in cls.limits:
            value = getattr(config, key)
            if value not in allowed:
                raise ValueError(f"{key} is {value!r} and parallel is {name!r}: {reason}")
        cls.check_ranks(name, config.batch_size, world_size)

    @classmethod  # noqa: B027 - most ways take what there is
    def check_devices(cls, name: str, gpus: int) -> None:
        """Refuse a trial of so many GPUs.

        Raises:
            ValueError: naming the key, the value and what must hold.

        """

    @classmethod
    @abstractmethod
    def check_ranks(cls, name: str, batch_size: int, world_size: int) -> None:
        """Refuse a number of ranks that a batch, or the way, cannot do with.

        Raises:
            ValueError: naming the key, the value and what must hold.

        """

    def micro_batch(self, batch_size: int, wanted: int | None) -> int:
        """How many of this rank's ``batch_size`` go through the network at once, memory apart."""
        return min(batch_size, wanted or batch_size)

    @abstractmethod
    def divide(self, divisible: Divisible) -> None:
        """Take this rank's part, before an optimizer has its parameters."""

    def connect(self) -> None:  # noqa: B027 - most ways have nothing more to do
        """Begin to share gradients."""

    @abstractmethod
    def step(
        self,
        inputs: Tensor,
        targets: Tensor,
        micro_batch: int,
        losses: Losses,
        backward: Callable[[Tensor], None],
    ) -> tuple[Tensor, Tensor]:
        """Forward and backward: the gradients become those of the whole batch's mean loss.

        Args:
            inputs: of this rank's share of the batch, (n, ...), where it feeds.
            targets: what ``losses`` wants for them, (n, ...).
            micro_batch: how many go through the network at once.
            losses: from logits and targets to one loss each.
            backward: adds up the gradients of a loss.

        Returns:
            The mean loss of those whose logits come out at this rank, and the logits, (m, classes).

        """

    @abstractmethod
    def forward(self, inputs: Tensor, count: int, micro_batch: int) -> Tensor:
        """The logits (m, classes) that come out at this rank; no gradients.

        Args:
            inputs: of ``count`` examples, where this rank feeds.
            count: at most :meth:`evaluated_at_once`.
            micro_batch: how many go through the network at once.

        """

    def evaluated_at_once(self, micro_batch: int) -> int:
        """How many examples :meth:`forward` is best given."""
        return micro_batch

    def even(self, batches: list[list[int]]) -> list[list[int]]:
        """What this rank must put through for ``batches`` of its own: they, and perhaps more."""
        return batches

    def agreed(self, values: Tensor) -> Tensor:
        """The ``values`` of the rank that feeds, where this one was not to work them out."""
        return values

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> None:
        """Cut the norm of the gradient of the whole network."""
        nn.utils.clip_grad_norm_(parameters, most)

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """On rank 0, ``state`` of the whole network: nested dicts, whole tensors, by name."""
        return state

    def place(self, like: Tensor, value: Tensor) -> Tensor:
        """Of a whole ``value``, what this rank copies into ``like``."""
        del like
        return value


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of ``tensor``; to look at, without the others."""
    if not hasattr(tensor, "to_local"):  # a DTensor has; to import it takes long
        return tensor
    part: Tensor = tensor.to_local()
    return part
