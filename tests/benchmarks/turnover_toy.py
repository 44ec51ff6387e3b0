"""The toy that all sides of the turnover benchmark train: so small that it costs nothing."""

from pathlib import Path

import torch
from torch import Tensor, nn

RANKS, EPOCHS = 2, 3
LOWER, UPPER = 1e-3, 0.3
"""Bounds of the learning rate, the one hyperparameter."""
PAUSING = "pausing"
"""What a side is told in place of ``plain``, to pause each trial after each epoch."""


def make_model() -> nn.Module:
    """A linear layer."""
    return nn.Linear(4, 1)


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Plain SGD."""
    return torch.optim.SGD(model.parameters(), lr=lr)


def train_once(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """An epoch: one step of 64 examples; returns the loss."""
    loss = _loss(model)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def evaluate(model: nn.Module) -> float:
    """The loss on 64 other examples."""
    with torch.no_grad():
        return _loss(model).item()


def _loss(model: nn.Module) -> Tensor:
    x = torch.randn(64, 4)
    return nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Write a checkpoint."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save(state, path)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read what :func:`save` wrote; returns its epoch."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])
