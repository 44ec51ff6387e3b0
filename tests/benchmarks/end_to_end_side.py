"""A side of the end-to-end benchmark.

``python -m tests.benchmarks.end_to_end_side NAME TRIALS EPOCHS IMAGES FOLDER``, with a name of
``RUNS``, tells the seconds since its start, and the validation accuracy, of every epoch that was
trained.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import psutil
import ray
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.tune.integration.ray_train import TuneReportCallback

from tests.benchmarks.harness import read_events, tell
from trainables import Context
from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from tuner import Experiment, start_run
from tuner.search.trial import trial_seed

RANKS, METRIC = 2, "val_accuracy"
FIXED = {
    "data": "digits", "image_size": 64, "optimizer": "adamw", "batch_size": 32,
    "random_crop": False,
}  # fmt: skip
BOUNDS = {"learning_rate": (3e-4, 3e-3), "weight_decay": (1e-4, 1e-1)}
Result = tuple[float, float]
"""Seconds since the epoch, and validation accuracy."""


@dataclass(frozen=True)
class Work:
    """What all sides are to do."""

    configs: list[dict[str, float]]
    epochs: int
    settings: dict[str, Any]
    folder: Path


def make_configs(trials: int) -> list[dict[str, float]]:
    """The same for all sides: log-uniform draws, seeded."""
    rng = random.Random(0)
    return [
        {name: low * (high / low) ** rng.random() for name, (low, high) in BOUNDS.items()}
        for _ in range(trials)
    ]


# -- ours -----------------------------------------------------------------------------------------


def run_tuner(work: Work, ranks: int = RANKS) -> list[Result]:
    """The search with all configurations given, so that it draws none; the default is the first."""
    first, *others = work.configs
    space = {
        name: {"type": "float", "lower": low, "upper": high, "log": True, "default": first[name]}
        for name, (low, high) in BOUNDS.items()
    }
    values = {
        "name": "whole",
        "trainable": "image_classification",
        "settings": work.settings,
        "search_space": {"hyperparameters": space},
        "search": {
            "algorithm": "random",
            "metric": METRIC,
            "mode": "max",
            "num_trials": len(work.configs),
            "max_epochs": work.epochs,
            "initial": others,
        },
        "resources": {
            "workers_per_trial": ranks,
            "cpus_per_worker": RANKS // ranks,
            "max_concurrent_trials": 1,
        },
        "storage": str(work.folder / "runs"),
        "cache": {"dir": str(work.folder / "cache")},
    }
    experiment = Experiment.model_validate(values)
    start_run(experiment, test=False)
    results = [event for event in read_events(experiment.folder) if event["event"] == "result"]
    return [(event["time"], event["metrics"][METRIC]) for event in results]


# -- the peers ------------------------------------------------------------------------------------


def train(number: int, work: Work, context: Context) -> Iterator[dict[str, float]]:
    """The loop that one writes around a network; the metrics of each epoch."""
    settings = Settings.model_validate({**work.settings, **work.configs[number]})
    task = ImageClassification(settings, context)
    for epoch in range(work.epochs):
        context.start_epoch(epoch)
        yield {**task.train_epoch(), **task.evaluate()}


def make_context(number: int, work: Work, **of_rank: Any) -> Context:
    """For a process of the peers: seeded as ours; what is decoded is kept for all trials, too."""
    seed, cache = trial_seed(0, number), work.folder / "cache"
    return Context(seed=seed, max_epochs=work.epochs, cache_dir=cache, **of_rank)


def train_rank(given: dict[str, Any]) -> None:
    """A rank of Ray Train."""
    torch.set_num_threads(1)
    own, number, work = ray.train.get_context(), given["number"], given["work"]
    ranks = {"rank": own.get_world_rank(), "world_size": own.get_world_size()}
    for metrics in train(number, work, make_context(number, work, **ranks)):
        ray.train.report({METRIC: metrics[METRIC]})


def drive(given: dict[str, Any]) -> None:
    """One Tune trial: one Ray Train run, as Ray documents it."""
    ray.train.torch.TorchTrainer(
        train_rank,
        train_loop_config=given,
        scaling_config=ScalingConfig(num_workers=RANKS),
        run_config=RunConfig(
            name=f"trial_{tune.get_context().get_trial_id()}",
            storage_path=str(given["work"].folder / "results"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


class Results(tune.Callback):  # type: ignore[misc]
    """Notes the accuracy of each epoch, once."""

    def __init__(self, epochs: int) -> None:
        self.found: dict[tuple[str, int], Result] = {}
        self.epochs = epochs

    def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:
        """Note it; the last result of a trial comes twice."""
        key = trial.trial_id, min(result["training_iteration"], self.epochs)
        self.found.setdefault(key, (time.time(), result[METRIC]))


def run_tune(work: Work) -> list[Result]:
    """One trial at a time; the driver function takes a logical CPU too."""
    ray.init(address="local", num_cpus=max(RANKS + 1, os.cpu_count() or 1))
    results = Results(work.epochs)
    try:
        found = tune.Tuner(
            drive,
            param_space={"number": tune.grid_search(range(len(work.configs))), "work": work},
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(
                name="whole", storage_path=str(work.folder / "results"), callbacks=[results],
                verbose=0,
            ),
        ).fit()  # fmt: skip
    finally:
        ray.shutdown()
    if found.errors:
        raise found.errors[0]
    return list(results.found.values())


def run_optuna(work: Work) -> list[Result]:
    """One process, with a thread for each of the ranks that others have."""
    torch.set_num_threads(RANKS)
    results = []

    def objective(trial: optuna.Trial) -> float:
        config = {name: trial.suggest_float(name, *BOUNDS[name], log=True) for name in BOUNDS}
        assert config == work.configs[trial.number]
        best, context = 0.0, make_context(trial.number, work, threads=RANKS)
        for metrics in train(trial.number, work, context):
            results.append((time.time(), metrics[METRIC]))
            best = max(best, metrics[METRIC])
        return best

    study = optuna.create_study(direction="maximize")
    for config in work.configs:
        study.enqueue_trial(config)
    study.optimize(objective, n_trials=len(work.configs))
    return results


RUNS: dict[str, Callable[[Work], list[Result]]] = {
    "tuner": run_tuner,
    "tuner_1": partial(run_tuner, ranks=1),
    "tune": run_tune,
    "optuna": run_optuna,
}


def main() -> None:
    """Run one side."""
    name, folder = sys.argv[1], Path(sys.argv[5])
    trials, epochs, images = map(int, sys.argv[2:5])
    settings = {**FIXED, "max_images_per_class": images} if images else FIXED
    started = psutil.Process().create_time()
    results = RUNS[name](Work(make_configs(trials), epochs, settings, folder))
    tell(folder, [(round(at - started, 2), accuracy) for at, accuracy in results])


if __name__ == "__main__":
    main()
