"""A ray.tune.Trainable as its users have them, after the one in Ray's BOHB example."""

import json
from pathlib import Path

import numpy as np
from ray.tune import Trainable


class Curve(Trainable):
    """A made-up learning curve, saved and restored."""

    def setup(self, config):
        self.timestep = 0

    def step(self):
        self.timestep += 1
        height = np.tanh(float(self.timestep) / self.config.get("width", 1))
        return {"loss": -height * self.config.get("height", 1)}

    def save_checkpoint(self, checkpoint_dir):
        (Path(checkpoint_dir) / "state.json").write_text(json.dumps({"timestep": self.timestep}))

    def load_checkpoint(self, checkpoint_dir):
        state = json.loads((Path(checkpoint_dir) / "state.json").read_text())
        self.timestep = state["timestep"]


class Finite(Curve):
    """It ends by itself after two steps."""

    def step(self):
        result = super().step()
        return {**result, "done": self.timestep >= 2}


class Unsaved(Trainable):
    """It saves nothing."""

    def step(self):
        return {"loss": 1.0}


class Broken(Curve):
    """It raises in its second step."""

    def step(self):
        if self.timestep == 1:
            raise ValueError("this trainable fails on purpose")
        return super().step()


class Fragile(Curve):
    """It raises for the greatest height, and reports NaN in the second step of the next one.

    Its process stays warm from trial to trial.
    """

    def reset_config(self, new_config):
        self.config = new_config
        self.timestep = 0
        return True

    def step(self):
        result = super().step()
        if self.config.get("height") == 5:
            raise ValueError("too high")
        if self.config.get("height") == 4 and self.timestep == 2:
            return {"loss": float("nan")}
        return result
