from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Children with these names hold the network's stages one after the other: blocks in timm's
# EfficientNets, MobileNets and ViTs, stages and layers in its ConvNeXts and Swins; features,
# encoder and trunk_output in torchvision. Elsewhere (a ResNet's layer1 to layer4) a child is a
# stage.
_CONTAINERS = frozenset({"blocks", "encoder", "features", "layers", "stages", "trunk_output"})
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)

Freeze = Literal["none", "all"] | int
"""Nothing, all of the backbone, or so many stages from the input up."""


@dataclass(frozen=True)
class Stage:
    """A part of a backbone that is frozen as one."""

    name: str
    parameters: list[nn.Parameter]


def stages(body: nn.Module) -> list[Stage]:
    """The stages of ``body`` from the input up.

    A norm layer belongs to the stage before it, and what hangs on the network itself (a class
    token, position embeddings) to the first. Layers without parameters are of no stage.
    """
    found: list[Stage] = []
    for name, module in _units(body):
        if found and isinstance(module, _NORMS):
            found[-1].parameters.extend(module.parameters())
        else:
            found.append(Stage(name, list(module.parameters())))
    owned = {id(parameter) for stage in found for parameter in stage.parameters}
    found[0].parameters.extend(p for p in body.parameters() if id(p) not in owned)
    return found


def _units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if name in _CONTAINERS:
            yield from _units(child, f"{prefix}{name}.")
        elif next(child.parameters(), None) is not None:
            yield prefix + name, child


def freeze(body: nn.Module, how: Freeze) -> list[str]:
    """Exclude the first stages of ``body`` from training; return the names of those stages.

    Raises:
        ValueError: ``body`` has fewer stages than ``how`` asks for.

    """
    found = stages(body)
    frozen = found[: frozen_count(how, len(found))]
    for stage in frozen:
        for parameter in stage.parameters:
            parameter.requires_grad = False
    return [stage.name for stage in frozen]


def frozen_count(how: Freeze, available: int) -> int:
    """How many of ``available`` stages are frozen.

    Raises:
        ValueError: there are not as many as ``how`` asks for.

    """
    count = {"none": 0, "all": available}[how] if isinstance(how, str) else how
    if count > available:
        raise ValueError(
            f"freeze is {count}, but the backbone has {available} stages: give 0 to {available}, "
            f"none or all"
        )
    return count


def train_mode(model: nn.Module) -> None:
    """Put ``model`` in training mode, but what is frozen in eval mode.

    A frozen BatchNorm thus keeps its pretrained statistics, and frozen dropout drops nothing: the
    same image gives the same frozen features every time.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def trained_names(model: nn.Module) -> set[str]:
    """The names in ``model.state_dict()`` of all that training changes: weights and statistics."""
    train_mode(model)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, module in model.named_modules():
        if module.training:
            buffers = module.named_buffers(prefix, recurse=False)
            names.update(name for name, _ in buffers)
    return names & model.state_dict().keys()
