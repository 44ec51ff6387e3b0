"""A Task whose checkpoints have a size that is known: ``ballast`` bytes, and some."""

import torch

from tuner import Task


class Heavy(Task):
    """Its loss is its hyperparameter, and less with each epoch."""

    def train_epoch(self):
        return {}

    def evaluate(self):
        return {"loss": self.config["x"] + 1 / (self.context.epoch + 1)}

    def state_dict(self):
        return {"ballast": torch.zeros(self.config["ballast"], dtype=torch.uint8)}

    def load_state_dict(self, state):
        pass
