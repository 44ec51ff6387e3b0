from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

# Children with these names hold the network's stages one after the other: blocks in timm's
# EfficientNets, MobileNets and ViTs, stages and layers in its ConvNeXts and Swins, levels in its
# NesTs, network in its VOLOs; features, encoder and trunk_output in torchvision. Elsewhere (a
# ResNet's layer1 to layer4) a child is a stage.
_CONTAINERS = frozenset(
    {
        "blocks",
        "body",
        "dense_stages",
        "encoder",
        "features",
        "layers",
        "levels",
        "network",
        "stages",
        "transformers",
        "trunk_output",
    }
)

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
    for name, module in units(body):
        parameters = list(module.parameters())
        if found and all(map(_is_vector, parameters)):
            found[-1].parameters.extend(parameters)
        else:
            found.append(Stage(name, parameters))
    owned = {id(parameter) for stage in found for parameter in stage.parameters}
    found[0].parameters.extend(p for p in body.parameters() if id(p) not in owned)
    return found


def units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules with parameters that stages are made of, by path, from the input up."""
    for name, child in module.named_children():
        if name in _CONTAINERS:
            yield from units(child, f"{prefix}{name}.")
        elif next(child.parameters(), None) is not None:
            yield prefix + name, child


def _is_vector(parameter: nn.Parameter) -> bool:
    """Whether it is a norm's scale or shift, and no weight of a layer that mixes channels."""
    return parameter.numel() == max(parameter.shape)


def freeze(body: nn.Module, how: Freeze) -> list[str]:
    """Exclude the first stages of ``body`` from training; return the names of those stages.

    What another call froze and this one does not is trained again.

    Raises:
        ValueError: ``body`` has fewer stages than ``how`` asks for.

    """
    found = stages(body)
    count = frozen_count(how, len(found))
    for stage in found[:count]:
        _set_trained(stage, trained=False)
    for stage in found[count:]:
        # What a network never trains, beside others of its stage, stays so.
        if not any(parameter.requires_grad for parameter in stage.parameters):
            _set_trained(stage, trained=True)
    return [stage.name for stage in found[:count]]


def _set_trained(stage: Stage, *, trained: bool) -> None:
    for parameter in stage.parameters:
        parameter.requires_grad = trained


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


def frozen_at(how: Freeze, available: int, epoch: int, unfreeze_every: int | None) -> int:
    """How many of ``available`` stages are frozen in ``epoch``, counted from 0.

    Args:
        how: what is frozen in the first epoch.
        available: stages of the backbone.
        epoch: from 0.
        unfreeze_every: after every so many epochs the last frozen stage is trained too; None:
            never.

    Raises:
        ValueError: there are not as many stages as ``how`` asks for.

    """
    count = frozen_count(how, available)
    return count if unfreeze_every is None else max(count - epoch // unfreeze_every, 0)
