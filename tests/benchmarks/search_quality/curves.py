"""Tables of real learning curves: multilayer perceptrons on sets of scikit-learn.

7,680 configurations, 27 epochs of SGD with momentum each, the validation loss after every one
(cross-entropy, or squared error of standardised targets) capped at 5. Made once, half a minute a
set on two cores, and kept in a cache. The table of digits was made in the same way and comes along.
"""

from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

Array = NDArray[np.float32]

AXES: dict[str, list[float | str]] = {
    "lr": [float(x) for x in np.logspace(-3.5, 0, 8)],
    "mom": [0.0, 0.5, 0.9, 0.97],
    "wd": [0.0, 1e-4, 1e-3, 1e-2],
    "bs": [16, 64, 256],
    "width": [4, 8, 16, 32, 96],
    "depth": [1, 2],
    "act": ["relu", "tanh"],
}
EPOCHS, WORST, TRAINING = 27, 5.0, 300
REGRESSIONS = ("diabetes", "friedman")


class _Shape(NamedTuple):
    """What configurations that are trained at once have in common."""

    batch: int
    width: int
    depth: int
    act: str
    regression: bool


def load_table(name: str, cache: Path) -> Array:
    """Losses, (8, 4, 4, 3, 5, 2, 2, 27): the axes of ``AXES``, then epochs."""
    given = Path(__file__).with_name(f"curves_{name}.npz")
    path = given if given.exists() else cache / f"curves_{name}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        table = make_table(name)
        np.savez_compressed(path, tab=table)
    return np.asarray(np.load(path)["tab"])


def make_table(name: str) -> Array:
    """Train every configuration on the set ``name``; those of one shape at once."""
    data = _split(name)
    table = np.empty([*map(len, AXES.values()), EPOCHS], dtype=np.float32)
    shapes = [range(len(AXES[axis])) for axis in ("bs", "width", "depth", "act")]
    for index in product(*shapes):
        values: Any = [
            AXES[axis][i] for axis, i in zip(("bs", "width", "depth", "act"), index, strict=True)
        ]
        curves = _train(data, _Shape(*values, regression=name in REGRESSIONS))
        table[:, :, :, *index] = curves.reshape(8, 4, 4, EPOCHS)
    return table


def _split(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if name == "friedman":
        x, y = datasets.make_friedman1(600, noise=1.0, random_state=0)
    elif name == "moons":
        x, y = datasets.make_moons(700, noise=0.3, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    count = min(TRAINING, int(0.6 * len(x)))
    x, y = x[order], y[order]
    x = StandardScaler().fit(x[:count]).transform(x)
    if name in REGRESSIONS:
        y = (y - y[:count].mean()) / y[:count].std()
    inputs = torch.tensor(x, dtype=torch.float32)
    targets = torch.tensor(y, dtype=torch.float32 if name in REGRESSIONS else torch.long)
    return inputs[:count], targets[:count], inputs[count:], targets[count:]


def _train(data: tuple[Tensor, Tensor, Tensor, Tensor], shape: "_Shape") -> Array:
    """Curves, (lr x mom x wd, epochs), of networks that start from the same weights."""
    inputs, targets, held_out, held_out_targets = data
    outputs = 1 if shape.regression else int(targets.max()) + 1
    rates = torch.tensor(list(product(AXES["lr"], AXES["mom"], AXES["wd"])), dtype=torch.float32)
    lr, momentum, decay = (rates[:, i, None, None] for i in range(3))
    torch.manual_seed(0)
    sizes = [inputs.shape[1], *[shape.width] * shape.depth, outputs]
    weights: list[Tensor] = []
    for before, after in pairwise(sizes):
        weights.append(torch.randn(before, after) * before**-0.5)
        weights.append(torch.zeros(1, after))
    weights = [w.expand(len(rates), *w.shape).clone().requires_grad_() for w in weights]
    velocities = [torch.zeros_like(w) for w in weights]
    curves = np.empty((len(rates), EPOCHS), dtype=np.float32)
    for epoch in range(EPOCHS):
        for chunk in torch.randperm(len(inputs)).split(shape.batch):
            loss = _losses(weights, shape, inputs[chunk], targets[chunk]).sum()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
                    velocity.mul_(momentum).add_(gradient + decay * weight)
                    weight.sub_(lr * velocity)
        with torch.no_grad():
            losses = _losses(weights, shape, held_out, held_out_targets)
        curves[:, epoch] = torch.nan_to_num(losses, nan=WORST).clamp(max=WORST).numpy()
    return curves


def _losses(weights: list[Tensor], shape: "_Shape", inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean loss of each network, (networks,)."""
    networks = len(weights[0])
    hidden = inputs.expand(networks, *inputs.shape)
    for i in range(0, len(weights), 2):
        hidden = torch.baddbmm(weights[i + 1], hidden, weights[i])
        if i + 2 < len(weights):
            hidden = torch.relu(hidden) if shape.act == "relu" else torch.tanh(hidden)
    if shape.regression:
        return ((hidden[..., 0] - targets) ** 2).mean(dim=1)
    flat = functional.cross_entropy(
        hidden.flatten(0, 1), targets.repeat(networks), reduction="none"
    )
    return flat.view(networks, -1).mean(dim=1)
