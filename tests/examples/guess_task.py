"""A Task whose model can be kept, loaded and asked."""

import json
from pathlib import Path

import torch
from toy_task import Toy


class Guess(Toy):
    """The toy Task; its model names the sum of the numbers in a file, as it takes it."""

    @staticmethod
    def export(config, state, folder):
        weights = {name: value.tolist() for name, value in state["model"].items()}
        (folder / "model.json").write_text(json.dumps(weights))

    @staticmethod
    def load(folder):
        return Model(json.loads((folder / "model.json").read_text()))


class Model:
    """A linear one."""

    def __init__(self, weights):
        self.weights = {name: torch.tensor(value) for name, value in weights.items()}

    def predict(self, paths):
        return [Prediction(path, self.weights) for path in paths]


class Prediction:
    """What the command ``predict`` prints."""

    def __init__(self, word, weights):
        x = torch.tensor(json.loads(Path(word).read_text()))
        self.input, self.probability = word, 1.0
        self.label = f"{(weights['weight'] @ x + weights['bias']).item():.6f}"
