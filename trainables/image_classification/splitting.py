import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from timm.layers import get_notrace_functions
from torch import Tensor, fx, nn

from trainables.image_classification.freezing import stages, units
from trainables.network import train_mode

_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Split:
    """A backbone in two parts that share its parameters and buffers: to train them is to train it.

    ``frozen`` makes the (N, ...) tensor at the freeze boundary of (N, 3, H, W) images, ``rest`` the
    (N, F) features of that tensor, which it may overwrite. Their modules are the backbone's, and so
    is their mode: put the backbone in training or eval mode, not the parts.
    """

    frozen: nn.Module
    rest: nn.Module


def split(features: nn.Module, frozen_stages: int, example: Tensor) -> Split | None:
    """Cut ``features`` where its first ``frozen_stages``, which are frozen already, end.

    Args:
        features: where it is used, and frozen: a later move to a device leaves the parts behind.
        frozen_stages: how many stages from the input up.
        example: (N, 3, H, W) images to try the parts on.

    Returns:
        None where there is no such cut: the forward pass cannot be traced, or is another in
        training; not one tensor crosses the boundary, or it has no batch dimension in front; what
        is before it is not what is frozen, or is random; the parts compute another thing than the
        whole.

    """
    found = stages(features)
    frozen = [parameter for stage in found[:frozen_stages] for parameter in stage.parameters]
    if not frozen or any(parameter.requires_grad for parameter in frozen):
        return None
    if frozen_stages == len(found):
        return Split(features, nn.Identity())
    with _modes_kept(features):
        parts = _cut(features, {id(parameter) for parameter in frozen})
        return parts if parts and _is_faithful(features, parts, example) else None


@contextmanager
def _modes_kept(features: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in features.modules()}
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


class _Tracer(fx.Tracer):
    """Follows a forward pass into what holds stages, but not into a stage, which stays a module.

    A stage's dropout, stochastic depth and BatchNorm thus go on doing what its mode says.
    """

    def __init__(self, features: nn.Module) -> None:
        # timm names those of its functions that no proxy gets through; they stay calls.
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._units = [path for path, _ in units(features)]

    def is_leaf_module(self, _module: nn.Module, module_qualified_name: str) -> bool:
        """Whether it stays a module."""
        return not any(path.startswith(f"{module_qualified_name}.") for path in self._units)


def trace(features: nn.Module) -> fx.Graph | None:
    """The calls that the forward pass makes, where they are the same in training and out of it."""
    named = inspect.signature(features.forward).parameters.items()
    # Without them a ViT's optional attention mask would cross the boundary too.
    defaults = {name: given.default for name, given in named if given.default is not given.empty}
    try:
        features.eval()
        graph = _Tracer(features).trace(features, defaults)
        train_mode(features)
        in_training = _Tracer(features).trace(features, defaults)
    except Exception:  # noqa: BLE001 - a forward pass may do with a proxy whatever fails
        return None
    return graph if str(graph) == str(in_training) else None


@dataclass(frozen=True)
class Boundary:
    """A place in a forward pass where nothing goes on but one tensor."""

    graph: fx.Graph
    crossing: fx.Node
    """What makes the tensor."""
    late: frozenset[fx.Node]
    """What comes after it."""
    constants: frozenset[fx.Node]
    """What is needed there too, and depends on no input."""


def boundary(features: nn.Module, graph: fx.Graph, early: set[int]) -> Boundary | None:
    """The boundary after all that depends on no other parameters than ``early``, by their ids.

    None where ``early`` parameters are needed after it, or not one tensor crosses it.
    """
    late: set[fx.Node] = set()
    for node in graph.nodes:
        own = {id(parameter) for parameter in _parameters(features, node)}
        if not own <= early or not late.isdisjoint(node.all_input_nodes):
            if own & early:
                return None
            late.add(node)
    needed = {source for node in late for source in node.all_input_nodes} - late
    constants = {node for node in needed if node.op == "get_attr"}
    crossing = needed - constants
    if len(crossing) != 1 or any(_parameters(features, node) for node in constants):
        return None
    return Boundary(graph, crossing.pop(), frozenset(late), frozenset(constants))


def between(features: nn.Module, start: Boundary | None, end: Boundary | None) -> fx.GraphModule:
    """What ``features`` does from one boundary to another.

    Where ``start`` is None it is from the input, where ``end`` is None to the output.
    """
    here = start or end
    assert here is not None
    nodes = [
        node
        for node in here.graph.nodes
        if (start is None or node in start.late | start.constants)
        and (end is None or node not in end.late)
    ]
    return _extract(
        features,
        nodes,
        start=start.crossing if start else None,
        end=end.crossing if end else None,
    )


def _cut(features: nn.Module, frozen: set[int]) -> Split | None:
    """Cut after all that does not depend on what is trained."""
    graph = trace(features)
    found = boundary(features, graph, frozen) if graph is not None else None
    if found is None:
        return None
    return Split(between(features, None, found), between(features, found, None))


def _parameters(features: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """The parameters that ``node`` itself brings in."""
    if node.op == "call_module":
        return list(features.get_submodule(str(node.target)).parameters())
    if node.op != "get_attr":
        return []
    path, _, name = str(node.target).rpartition(".")
    value = getattr(features.get_submodule(path), name)
    return [value] if isinstance(value, nn.Parameter) else []


def _extract(
    features: nn.Module,
    nodes: list[fx.Node],
    *,
    start: fx.Node | None = None,
    end: fx.Node | None = None,
) -> fx.GraphModule:
    """A module of ``nodes``, fed in place of ``start`` and returning ``end``, where given."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = graph.placeholder("boundary")
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    if end is not None:
        graph.output(copies[end])
    return fx.GraphModule(features, graph)


@torch.no_grad()
def _is_faithful(features: nn.Module, parts: Split, example: Tensor) -> bool:
    """Whether each image has a row at the boundary, the same in training, and ``rest`` fits it."""
    features.eval()
    images = torch.cat([example, example.flip(0)])
    boundary = parts.frozen(images)
    if not isinstance(boundary, Tensor) or boundary.shape[:1] != images.shape[:1]:
        return False
    # In a batch of the same size, as a GPU rounds otherwise in another.
    beside_others = parts.frozen(torch.cat([example, torch.zeros_like(example)]))
    if not close(beside_others[: len(example)], boundary[: len(example)]):
        return False
    if not close(parts.rest(boundary.clone()), features(images)):
        return False
    train_mode(features)
    if any(module.training and _has_statistics(module) for module in parts.frozen.modules()):
        return False
    with torch.random.fork_rng([example.device] if example.is_cuda else []):
        return close(parts.frozen(images), boundary)


def _has_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def close(values: Tensor, others: Tensor) -> bool:
    """Whether they are the same, within what the order of sums does."""
    atol = _TOLERANCE * others.abs().max().item()
    return values.shape == others.shape and torch.allclose(values, others, rtol=0, atol=atol)
