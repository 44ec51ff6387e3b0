"""A Task that can be fitted for good and has data for a test, all of it a sum of random numbers."""

import time
from pathlib import Path

import torch

from tuner import Task


class Scored(Task):
    """``notes``: a folder where calls of ``test`` leave a line.

    A file there makes it fail (``fail_final``, ``fail_test``) or have no data (``no_data``).
    """

    def __init__(self, config, context):
        super().__init__(config, context)
        self.notes = Path(config["notes"])
        self.total = torch.zeros(1)

    def train_epoch(self):
        if self.context.max_epochs != 3:  # the search's trials have three
            time.sleep(self.config.get("sleep", 0))
            self.fail_if_asked("final")
        self.total += self.config["x"] * torch.rand(1) / self.context.max_epochs
        return {"for_good": self.context.final, "seed": self.context.seed}

    def evaluate(self):
        return {"loss": abs(self.total.item() - self.config.get("goal", 0.5))}

    def test(self):
        with (self.notes / "tests").open("a") as file:
            file.write(f"{self.total.item()}\n")
        self.fail_if_asked("test")
        if (self.notes / "no_data").exists():
            return {}
        return {"accuracy": self.total.item(), "for_good": self.context.final}

    def fail_if_asked(self, when):
        if (self.notes / f"fail_{when}").exists():
            raise ValueError(f"the {when} fails on purpose")

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]
