"""Optimizer steps: who is trained and how fast, in which precision, clipped, and averaged."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainables.image_classification.backbones import Classifier
from trainables.image_classification.config import Settings

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Optimization:
    """Turns gradients into steps, and keeps what belongs to them.

    Args:
        config: the trial's settings.
        device: where the model is.
        total: steps of a full trial, which the schedule spans.
        warmup: steps of these over which the learning rate rises.

    """

    def __init__(self, config: Settings, device: torch.device, *, total: int, warmup: int) -> None:
        self.config, self.device, self.total, self.warmup = config, device, total, warmup
        self.step = 0
        """Steps taken."""
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._tensors: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._average: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer

    def rearrange(self, model: Classifier, kept: set[str]) -> None:
        """Train what has ``requires_grad`` from now on; what had it before keeps its state.

        ``kept`` names what training changes in ``model.state_dict()``; an average is of these.
        """
        state = self._optimizer_state() if self._parameters else {}
        self._tensors = {n: t for n, t in model.state_dict().items() if n in kept}
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer = self._new_optimizer(model)
        self._load_optimizer_state(state)
        if self.config.ema_decay:
            copies = {name: t.clone() for name, t in self._tensors.items()}
            self._average = copies | self._average

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return autocast(self.device, self.config.precision)

    @property
    def learning_rates(self) -> dict[str, float]:
        """In the last step: the head's, and the backbone's where that is another."""
        *backbone, head = (float(group["lr"]) for group in self._optimizer.param_groups)
        found = {"learning_rate": head}
        if backbone and self.config.backbone_lr_scale != 1:
            found["backbone_learning_rate"] = backbone[0]
        return found

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
            nn.utils.clip_grad_norm_(self._parameters.values(), self.config.clip_norm)
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

    def extra_bytes(self) -> int:
        """What a step needs beyond the model and its gradients: the optimizer's two or one state.

        Known before the first step allocates it.
        """
        states = 2 if self.config.optimizer == "adamw" else int(self.config.momentum > 0)
        return states * sum(p.numel() * p.element_size() for p in self._parameters.values())

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
                name: torch.empty_like(self._tensors[name]).copy_(tensor)
                for name, tensor in state["ema"].items()
            }
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _new_optimizer(self, model: Classifier) -> torch.optim.Optimizer:
        """Two groups of parameters, each with its own peak learning rate."""
        config = self.config
        backbone = [p for p in model.features.parameters() if p.requires_grad]
        groups = [
            {"params": backbone, "peak": config.learning_rate * config.backbone_lr_scale},
            {"params": list(model.head.parameters()), "peak": config.learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
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
        for name, values in state.items():
            parameter = self._parameters[name]
            self._optimizer.state[parameter] = {
                key: _like(parameter, key, value) for key, value in values.items()
            }

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


def channels_last(inputs: Tensor) -> Tensor:
    """Laid out as convolutions take them fastest, where they are maps."""
    if inputs.ndim == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


def schedule(step: int, total: int, warmup: int) -> float:
    """The share of its peak that the learning rate has at ``step`` (from 0) of ``total``.

    It rises evenly over ``warmup`` steps, then falls along half a cosine to 0 at ``total``.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def _like(parameter: nn.Parameter, key: str, value: Any) -> Any:
    """A copy of an optimizer's ``value``, where and laid out in memory as the optimizer has it."""
    if not torch.is_tensor(value):
        return value
    if key == "step":  # the optimizers count on the CPU
        return value.clone()
    return torch.empty_like(parameter).copy_(value)
