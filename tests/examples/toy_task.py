"""A user's Task: PyTorch, and no word of Ray."""

import os
import signal
import time

import torch
from torch import nn

from tuner import Task


class Toy(Task):
    """Fits the sum of four numbers. Its settings make it sleep, fail, or end its process."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.model = context.parallel(nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.get("lr", 0.01))

    def train_epoch(self):
        self.misbehave()
        time.sleep(self.config.get("sleep", 0))
        x = torch.randn(64, 4)
        loss = nn.functional.mse_loss(self.model(x), x.sum(1, keepdim=True))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"train_loss": self.context.mean(loss.item(), 1)}

    def evaluate(self):
        x = torch.randn(64, 4)
        with torch.no_grad():
            loss = nn.functional.mse_loss(self.model(x), x.sum(1, keepdim=True))
        return {"loss": self.context.mean(loss.item(), 1), "pid": os.getpid()}

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def misbehave(self):
        at = self.config.get("at_epoch", 1) == self.context.epoch
        if at and self.config.get("fail_on_rank") == self.context.rank:
            raise ValueError(f"rank {self.context.rank} fails on purpose")
        marker = self.config.get("die_once")  # a file: the first rank 1 to come along dies
        if at and marker and self.context.rank == self.config.get("die_on_rank", 1):
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)
