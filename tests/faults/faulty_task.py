"""A Task whose results tell whether its state came back; it raises and drops its network on demand.

What it reports rests on its seed, its epoch and the state that it carries from epoch to epoch, so
that a trial that goes on from anything else than its last checkpoint is found out.
"""

import os
import socket
import time
from pathlib import Path

import torch

from trainables import process_group
from tuner import Task


class Faulty(Task):
    """``raises``: seed of a trial -> what befalls it, ``oom`` or ``nan``, in its second epoch.

    ``orders``: a folder; a file ``drop_network`` in it has the rank that comes along cut its
    connections to the others.
    """

    def __init__(self, config, context):
        super().__init__(config, context)
        self.total = torch.zeros(1000)

    def train_epoch(self):
        time.sleep(self.config["sleep"])
        self.obey()
        if self.fate == "oom":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        drawn = self.context.sum(torch.rand(1000)) / self.context.world_size
        self.total = 0.7 * self.total + self.config["x"] * drawn
        return {}

    def evaluate(self):
        loss = (self.total.mean().item() - 1) ** 2 + 0.3 / (self.context.epoch + 1)
        return {"loss": float("nan") if self.fate == "nan" else loss}

    def state_dict(self):
        return {"total": self.total, "note": "as it was"}

    def load_state_dict(self, state):
        assert state["note"] == "as it was"
        self.total = state["total"].clone()

    @property
    def fate(self):
        return self.config["raises"].get(str(self.context.seed)) if self.context.epoch == 1 else ""

    def obey(self):
        try:
            (Path(self.config["orders"]) / "drop_network").unlink()
        except FileNotFoundError:
            return
        for descriptor in process_group._connections:
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
