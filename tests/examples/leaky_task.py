"""A Task that leaks, in the ways that they do."""

import torch
from torch import nn

from trainables import Task

KEPT = []


class Leaky(Task):
    """``leak``: nothing, graph (losses are kept as tensors) or trial (each leaves 300 MB)."""

    def __init__(self, config, context):
        super().__init__(config, context)
        torch.manual_seed(context.seed)
        self.model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 1))
        self.parallel = context.parallel(self.model)
        self.optimizer = torch.optim.SGD(self.parallel.parameters(), lr=1e-4)
        self.losses = []
        if config["leak"] == "trial":
            KEPT.append(torch.ones(300 * 2**18))

    def train_epoch(self):
        total = 0.0
        for _ in range(10):
            loss = self.parallel(torch.randn(256, 256)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
            if self.config["leak"] == "graph":
                self.losses.append(loss)
        return {"loss": total / 10}

    def evaluate(self):
        return {"width": self.config["width"]}

    def state_dict(self):
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
