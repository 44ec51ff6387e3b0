"""What TensorBoard is shown of a classifier, and what is kept of an evaluation for that."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboardX.proto.event_pb2 import Event
from torch import Tensor, nn

from trainables import drawing
from trainables.metrics import Tally
from trainables.parallelism import local

VALUES = 1_000
"""At most so many of a tensor's values go into its histogram, evenly spread over it."""
BINS = 64
POINTS = 1_000
"""At most so many examples are in the projection, evenly spread over those that the rank sees."""
CLASSES_DRAWN = 50
"""Of more classes no confusion matrix is drawn: it could not be read."""

_graphs: dict[tuple[Any, ...], bytes] = {}
"""Serialised graphs that this process has traced; empty where that failed."""
_GRAPHS_KEPT = 8
"""No more are traced: each trace takes some 12 MB that never come back."""


@dataclass(frozen=True)
class Predictions:
    """Of n examples, each (n,): the most probable class, its probability, and the class it is."""

    predicted: Tensor
    confidence: Tensor
    true: Tensor

    def most_telling(self, count: int) -> Tensor:
        """Positions of ``count`` to look at: mistakes, the surest first, then what is right.

        Of what is right, the least sure comes first.
        """
        mistaken = self.predicted != self.true
        worth = torch.where(mistaken, 1 + self.confidence, 1 - self.confidence)
        return worth.argsort(descending=True)[:count]

    def at(self, positions: Tensor) -> "Predictions":
        """Those of some examples."""
        return Predictions(
            self.predicted[positions], self.confidence[positions], self.true[positions]
        )


class Watch:
    """Keeps, while a network is evaluated, what there is to show of it.

    It sits before the network's head for good, since a compiled network cannot be hooked later.
    """

    def __init__(self, head: nn.Module) -> None:
        self.every = 1
        """From the first example on, of every how manieth the features are kept."""
        self._position: int | None = None
        """Of the next image in the evaluation; None: its features are not wanted."""
        self.forget()
        head.register_forward_pre_hook(self._see)

    def forget(self) -> None:
        """Drop what is kept."""
        self.predicted: list[Tensor] = []
        """Of each batch: the most probable classes (n,)."""
        self.confidence: list[Tensor] = []
        """Their probabilities (n,)."""
        self.features: list[Tensor] = []
        """What goes into the head (n, F)."""

    def start(self, examples: int) -> None:
        """Keep features of the examples that follow, so many."""
        self.every, self._position = math.ceil(examples / POINTS), 0

    def stop(self) -> None:
        """Keep no more of them."""
        self._position = None

    def add(self, logits: Tensor) -> None:
        """Keep the predictions of a batch of (n, classes) logits."""
        confidence, predicted = logits.float().softmax(1).max(1)
        self.predicted.append(predicted)
        self.confidence.append(confidence)

    def predictions(self, true: Tensor) -> Predictions:
        """What was kept, beside the examples' own classes."""
        return Predictions(torch.cat(self.predicted).cpu(), torch.cat(self.confidence).cpu(), true)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _see(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002 - a hook's
        if self._position is None:
            return
        (features,) = inputs
        self.features.append(features[-self._position % self.every :: self.every].clone())
        self._position += len(features)


def write_histograms(
    writer: Any, parameters: Mapping[str, nn.Parameter], step: int, values: int = VALUES
) -> None:
    """Histograms of the weights and of their gradients, by the parameters' names.

    Of divided ones, of what is here.
    """
    tensors = {f"weights/{name}": local(p.detach()) for name, p in parameters.items()}
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    tensors |= {f"gradients/{name}": local(grad) for name, grad in gradients.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    some = [_spread(tensor.flatten(), values).float() for tensor in tensors.values()]
    sizes = [len(own) for own in some]
    every = torch.cat(some).cpu().split_with_sizes(sizes)  # a GPU is asked once
    for name, own in zip(tensors, every, strict=True):
        finite = own[own.isfinite()].numpy()  # a step of a scaled loss may have overflowed
        if len(finite):
            writer.add_histogram(name, finite, step, bins=BINS)


def write_graph(writer: Any, model: nn.Module, example: Tensor, key: tuple[Any, ...]) -> None:
    """The graph of ``model``, which is in eval mode; traced once a process for each ``key``.

    In a process that has traced enough already, nothing is written for a new ``key``.
    """
    if key not in _graphs and len(_graphs) < _GRAPHS_KEPT:
        _graphs[key] = b""  # a trace that fails takes its memory too
        _graphs[key] = trace(model, example)
    if graph := _graphs.get(key):
        writer.file_writer.add_event(Event(graph_def=graph))


@torch.no_grad()
def trace(model: nn.Module, example: Tensor) -> bytes:
    """A serialised ``GraphDef`` of what ``model`` does with ``example``.

    ``SummaryWriter.add_graph`` runs the model twice more, to check the trace; that takes three
    times as long.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.versions_pb2 import VersionDef
    from torch.utils.tensorboard._pytorch_graph import parse

    devices = [example.device] if example.device.type == "cuda" else []
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices),
        torch.compiler.set_stance("force_eager"),
    ):
        warnings.simplefilter("ignore")  # of constants in the trace, which nobody runs
        traced = torch.jit.trace(model, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        graph = traced.graph
        torch._C._jit_pass_inline(graph)  # noqa: SLF001 - as torch.utils.tensorboard does
    nodes = parse(graph, traced, example)  # type: ignore[no-untyped-call]
    definition = GraphDef(node=nodes, versions=VersionDef(producer=22))  # torch's own number
    serialised: bytes = definition.SerializeToString()
    return serialised


def write_confusion(writer: Any, counts: Tensor, labels: Sequence[str], step: int) -> None:
    """A picture of (true, predicted) counts."""
    sheet = drawing.draw_confusion(counts, labels)
    writer.add_image("confusion_matrix", drawing.as_array(sheet), step, dataformats="HWC")


def write_pr_curves(writer: Any, tally: Tally, labels: Sequence[str], step: int) -> None:
    """Of each class that occurs, precision against recall over the thresholds of a probability."""
    for label, points in zip(labels, tally.pr_curves(), strict=True):
        true_positives, false_negatives = points[0], points[3]
        if true_positives[0] + false_negatives[0]:
            writer.add_pr_curve_raw(f"pr/{label}", *points, step, points.shape[1])


def write_projection(
    writer: Any, features: Tensor, true: Tensor, labels: Sequence[str], step: int
) -> None:
    """A cloud of points in three dimensions, one an example, colored by class; and its legend.

    Args:
        writer: a SummaryWriter.
        features: (n, F) of the examples.
        true: (n,) classes.
        labels: the classes' names.
        step: the epoch.

    """
    points = project(features.float().cpu().numpy())
    palette = drawing.class_colors(len(labels))
    colors = np.array([palette[i] for i in true.tolist()], np.uint8)
    look = {"material": {"cls": "PointsMaterial", "size": 0.03}}
    writer.add_mesh("projection", points[None], colors[None], config_dict=look, global_step=step)
    if len(labels) <= CLASSES_DRAWN:
        legend = drawing.as_array(drawing.draw_legend(labels, palette))
        writer.add_image("projection_legend", legend, step, dataformats="HWC")


def project(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first three principal components (n, 3) of (n, F) features, scaled to -1 to 1.

    By subspace iteration (Halko, Martinsson and Tropp 2011), from the same start each time; torch's
    and scikit-learn's would draw from a global generator, or take longer.
    """
    centred = features - features.mean(0)
    basis = np.random.default_rng(0).standard_normal((centred.shape[1], 8), np.float32)
    for _ in range(4):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    left, sizes, _ = np.linalg.svd(centred @ basis, full_matrices=False)
    found = (left * sizes)[:, :3]
    found = np.pad(found, [(0, 0), (0, 3 - found.shape[1])])
    scaled: NDArray[np.float32] = found / max(np.abs(found).max(), 1e-12)
    return scaled


def _spread(values: Tensor, most: int) -> Tensor:
    return values[:: math.ceil(len(values) / most)]
