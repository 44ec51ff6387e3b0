"""Optimizer steps: who is trained and how fast, in which precision, clipped, and averaged."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from trainables.parallelism import local

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OptimizationSettings(BaseModel):
    """How a model is trained, whatever it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="The optimizer.")
    learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate, after warm-up.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: NonNegativeFloat = Field(1e-4, description="Weight decay of either optimizer.")
    warmup_epochs: NonNegativeFloat = Field(
        0.0,
        description="Linear warm-up of the learning rate, in epochs, at most half of a full trial; "
        "cosine decay follows.",
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="The gradient's norm is cut to this; null: it is not."
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Evaluate and keep an exponential moving average of the weights, updated with "
        "this decay after every step; 0: the weights themselves.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Of the forward pass: bf16 and fp16 are autocast, fp16 scales gradients.",
    )


class Part(NamedTuple):
    """A part of a model that has a learning rate of its own."""

    module: nn.Module
    scale: float = 1.0
    """Its learning rate, as a multiple of the setting."""


class Optimization:
    """Turns gradients into steps, and keeps what belongs to them.

    Args:
        config: the trial's settings.
        device: where the model is.
        total: steps of a full trial, which the schedule spans.
        warmup: steps of these over which the learning rate rises.
        clip: cuts the norm of the parameters' gradient, where that is not all in this process.
        place: from a tensor of the model and a value for the whole of it, what is the tensor's,
            where the model is divided.

    """

    def __init__(
        self,
        config: OptimizationSettings,
        device: torch.device,
        *,
        total: int,
        warmup: int,
        clip: Callable[[Iterable[nn.Parameter], float], Any] = nn.utils.clip_grad_norm_,
        place: Callable[[Tensor, Tensor], Tensor] = lambda _, value: value,
    ) -> None:
        self.config, self.device, self.total, self.warmup = config, device, total, warmup
        self._clip, self._place = clip, place
        self.step = 0
        """Steps taken."""
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._tensors: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._average: dict[str, Tensor] = {}
        self._parts: dict[str, Part] = {}
        self._optimizer: torch.optim.Optimizer

    def rearrange(self, model: nn.Module, kept: set[str], parts: Mapping[str, Part]) -> None:
        """Train what has ``requires_grad`` from now on; what had it before keeps its state.

        What is on torch's meta device is another rank's.

        Args:
            model: the whole.
            kept: what training changes in ``model.state_dict()``; an average is of these.
            parts: what ``model`` is made of, by the names of the metrics that their learning rates
                are reported as.

        """
        state = self._optimizer_state() if self._parameters else {}
        state_dict = model.state_dict().items()
        self._tensors = {n: t for n, t in state_dict if n in kept and not t.is_meta}
        self._parameters = {n: p for n, p in model.named_parameters() if _is_trained(p)}
        self._parts = {
            name: part
            for name, part in parts.items()
            if any(parameter.requires_grad for parameter in part.module.parameters())
        }
        self._optimizer = self._new_optimizer()
        self._load_optimizer_state(state)
        if self.config.ema_decay:
            copies = {name: t.clone() for name, t in self._tensors.items()}
            self._average = copies | self._average

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return autocast(self.device, self.config.precision)

    @property
    def learning_rates(self) -> dict[str, float]:
        """In the last step, the setting's own, and those of parts that have another."""
        groups = zip(self._parts.items(), self._optimizer.param_groups, strict=True)
        return {
            name: float(group["lr"])
            for (name, part), group in groups
            if part.scale != 1 or name == "learning_rate"
        }

    def begin(self) -> None:
        """Begin a step: the gradients to come add up."""
        share = schedule(self.step, self.total, self.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self._optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one part of the batch."""
        torch.autograd.backward(self.scaler.scale(loss))

    def end(self) -> None:
        """Clip, step, average."""
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self._optimizer)
            self._clip(self._parameters.values(), self.config.clip_norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self.step += 1
        self._update_average()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the average of the weights in the model, where one is kept."""
        own = {name: self._tensors[name].clone() for name in self._average}
        self._fill(self._average)
        try:
            yield
        finally:
            self._fill(own)

    def tensors(self, names: set[str]) -> list[Tensor]:
        """Those of the model by these names, and their averages where such are kept."""
        averages = [tensor for name, tensor in self._average.items() if name in names]
        return [self._tensors[name] for name in sorted(names)] + averages

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Those that are trained here, by name."""
        return self._parameters

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy whole ``tensors``, by name, into what training changes of the model."""
        own = {name: tensor for name, tensor in tensors.items() if name in self._tensors}
        self._fill({name: self._place(self._tensors[name], t) for name, t in own.items()})

    def extra_bytes(self) -> int:
        """What a step needs beyond the model and its gradients: the optimizer's two or one state.

        Known before the first step allocates it.
        """
        states = 2 if self.config.optimizer == "adamw" else int(self.config.momentum > 0)
        return states * sum(p.numel() * p.element_size() for p in self._parameters.values())

    def state_bytes(self) -> int:
        """What the optimizer's state has taken, of what is here."""
        values = [v for own in self._optimizer.state.values() for v in own.values()]
        return sum(local(value).nbytes for value in values if torch.is_tensor(value))

    def state_dict(self) -> dict[str, Any]:
        """What going on takes, copied; learning rates follow from the step."""
        state: dict[str, Any] = {"optimizer": self._optimizer_state(), "step": self.step}
        if self._average:
            state["ema"] = {name: tensor.clone() for name, tensor in self._average.items()}
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, exactly."""
        self._load_optimizer_state(state["optimizer"])
        self.step = state["step"]
        if self.config.ema_decay:
            self._average = {
                name: torch.empty_like(own).copy_(self._place(own, state["ema"][name]))
                for name, own in self._tensors.items()
            }
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """A group of parameters for each part, with its own peak learning rate."""
        config = self.config
        groups = [
            {
                "params": [p for p in part.module.parameters() if _is_trained(p)],
                "peak": config.learning_rate * part.scale,
            }
            for part in self._parts.values()
        ]
        if config.optimizer == "sgd":
            return torch.optim.SGD(
                groups, momentum=config.momentum, weight_decay=config.weight_decay
            )
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def _optimizer_state(self) -> dict[str, dict[str, Any]]:
        """By the names of the parameters."""
        return {
            name: {
                key: value.clone() if torch.is_tensor(value) else value
                for key, value in self._optimizer.state[parameter].items()
            }
            for name, parameter in self._parameters.items()
            if parameter in self._optimizer.state
        }

    def _load_optimizer_state(self, state: dict[str, dict[str, Any]]) -> None:
        self._optimizer.state.clear()
        for name, parameter in self._parameters.items():
            if name in state:
                self._optimizer.state[parameter] = {
                    key: self._like(parameter, key, value) for key, value in state[name].items()
                }

    def _like(self, parameter: nn.Parameter, key: str, value: Any) -> Any:
        """A copy of an optimizer's ``value``, where and laid out as the optimizer has it."""
        if not torch.is_tensor(value):
            return value
        if key == "step":  # the optimizers count on the CPU
            return value.clone()
        return torch.empty_like(parameter).copy_(self._place(parameter, value))

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponentially, with a decay that starts low: a short trial would keep its random head."""
        if not self._average:
            return
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, average in self._average.items():
            if average.is_floating_point():
                average.lerp_(self._tensors[name], 1 - decay)
            else:  # BatchNorm's count of batches
                average.copy_(self._tensors[name])

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self._tensors[name].copy_(tensor)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass in ``precision``: fp32, bf16 or fp16."""
    dtype = _PRECISIONS[precision]
    enabled = dtype is not torch.float32
    return torch.autocast(device.type, dtype if enabled else None, enabled=enabled)


def schedule(step: int, total: int, warmup: int) -> float:
    """The share of its peak that the learning rate has at ``step`` (from 0) of ``total``.

    It rises evenly over ``warmup`` steps, then falls along half a cosine to 0 at ``total``.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def _is_trained(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and not parameter.is_meta
