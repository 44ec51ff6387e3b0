"""The toy that both sides of the turnover benchmark train: so small that it costs nothing."""

import torch
from torch import Tensor, nn

RANKS, EPOCHS = 2, 3
LOWER, UPPER = 1e-3, 0.3
"""Bounds of the learning rate, the one hyperparameter."""


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
    loss.backward()
    optimizer.step()
    return loss.item()


def evaluate(model: nn.Module) -> float:
    """The loss on 64 other examples."""
    with torch.no_grad():
        return _loss(model).item()


def _loss(model: nn.Module) -> Tensor:
    x = torch.randn(64, 4)
    return nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
