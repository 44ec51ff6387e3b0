"""Cutting a network into parts that follow one another, with as much work in each as can be."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.image_classification import backbones
from trainables.image_classification.freezing import stages, units
from trainables.image_classification.splitting import Boundary, between, boundary, close, trace
from trainables.network import Classifier


def divide(
    model: Classifier, network: nn.Module, example: Tensor, first: int, count: int
) -> list[nn.Module]:
    """Cut ``network`` into ``count`` parts that share its parameters and buffers.

    Args:
        model: the whole, frozen already, on its device.
        network: the model, or what of it follows its first stages, and the head.
        example: (N, ...) inputs of ``network``, to count its work on, and to try the parts on.
        first: how many stages are before ``network``.
        count: at least two.

    Raises:
        ValueError: it cannot be cut into so many.

    """
    features, found = model.features, boundaries(model.features)
    places = [place for place in sorted(found) if place > first]
    if len(places) < count - 1:
        raise ValueError(refusal(len(places) + 1, count))
    chosen = balanced(_work(model, network, example), places, count, first)
    start = found.get(first)
    parts: list[nn.Module] = []
    for end in (*chosen, None):
        until = found[end] if end is not None else None
        parts.append(between(features, start, until))
        start = until
    parts[-1] = nn.Sequential(parts[-1], model.head)
    if not _is_faithful(network, parts, example):
        raise ValueError(refusal(1, count))
    return parts


def refusal(possible: int, count: int) -> str:
    """Why a network that has ``possible`` parts is not cut into ``count``."""
    return (
        f"parallel is 'pipeline' on {count} ranks, but what is trained of the backbone can be cut "
        f"into {possible} parts at most: give the trial fewer ranks, freeze fewer stages or set "
        "cache_features: false, or use another backbone or ddp"
    )


def boundaries(features: nn.Module) -> dict[int, Boundary]:
    """Where ``features`` can be cut: after so many stages, one tensor goes on."""
    graph = trace(features)
    if graph is None:
        return {}
    found: dict[int, Boundary] = {}
    early: set[int] = set()
    for number, stage in enumerate(stages(features), start=1):
        early |= {id(parameter) for parameter in stage.parameters}
        if cut := boundary(features, graph, early):
            found[number] = cut
    return found


def blocks(features: nn.Module, network: nn.Module) -> list[nn.Module]:
    """The stages of ``features`` that are in ``network``, without the norm layers between them."""
    inside = {id(parameter) for parameter in network.parameters()}
    found = (features.get_submodule(stage.name) for stage in stages(features))
    return [stage for stage in found if all(id(p) in inside for p in stage.parameters())]


def check_parts(backbone: str, first: int, count: int) -> None:
    """Refuse ``count`` parts, where the network cannot be cut into so many.

    Args:
        backbone: its name.
        first: how many of its stages are in no part.
        count: at least two.

    Raises:
        ValueError: it cannot.

    """
    possible = 1 + sum(place > first for place in _places(backbone))
    if possible < count:
        raise ValueError(refusal(possible, count))


@lru_cache(maxsize=16)
def _places(backbone: str) -> list[int]:
    """After how many stages ``backbone`` can be cut."""
    with torch.random.fork_rng(devices=[]):
        features = backbones.build(backbone, 2, "none").features
    return sorted(boundaries(features))


def balanced(work: Sequence[float], places: Sequence[int], count: int, first: int = 0) -> list[int]:
    """Of the ``places`` to cut at, those with which the most work in a part is least.

    Args:
        work: of each stage, in any unit.
        places: after how many stages it can be cut, in order.
        count: parts to make.
        first: stages that are in no part.

    """

    @cache
    def best(start: int, parts: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return sum(work[start:]), ()
        left = [place for place in places if place > start]
        options = []
        for place in left[: len(left) - parts + 2]:
            most, others = best(place, parts - 1)
            options.append((max(sum(work[start:place]), most), (place, *others)))
        return min(options)

    return list(best(first, count)[1])


def _work(model: Classifier, network: nn.Module, example: Tensor) -> list[float]:
    """Of each stage, about what a step takes: operations, three times where it is trained."""
    found = stages(model.features)
    owners = {id(p): number for number, stage in enumerate(found) for p in stage.parameters}
    work = [0.0] * len(found)
    counter = FlopCounterMode(display=False)

    def count(unit: nn.Module, *_: Any) -> None:
        number = owners[id(next(unit.parameters()))]
        work[number] += counter.get_total_flops() - sum(work)  # since the unit before it

    hooks = [unit.register_forward_hook(count) for _, unit in units(model.features)]
    network.eval()
    with torch.no_grad(), counter:
        network(example)
    for hook in hooks:
        hook.remove()
    return [
        amount * (3 if any(p.requires_grad for p in stage.parameters) else 1)
        for amount, stage in zip(work, found, strict=True)
    ]


@torch.no_grad()
def _is_faithful(network: nn.Module, parts: Sequence[nn.Module], example: Tensor) -> bool:
    """Whether the parts do what the whole does."""
    network.eval()
    through = example
    for part in parts:
        through = part(through)
    return close(through, network(example))
