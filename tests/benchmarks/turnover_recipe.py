"""A peer in the turnover benchmark: the recipe that Ray documents for Tune over Ray Train V2.

``python -m tests.benchmarks.turnover_recipe TRIALS plain FOLDER`` tells of every result when it
came, of which trial and epoch. The recipe is that of
docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html: a driver function given to
``tune.Tuner`` launches a ``TorchTrainer``, whose ``TuneReportCallback`` passes the results on.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial

from tests.benchmarks.harness import tell
from tests.benchmarks.turnover_toy import (
    EPOCHS,
    LOWER,
    RANKS,
    UPPER,
    evaluate,
    make_model,
    make_optimizer,
    train_once,
)

try:
    import ray.train
    import ray.train.torch
    from ray.tune.integration.ray_train import TuneReportCallback
except ImportError as missing:
    raise SystemExit(f"Ray Train is missing: pip install 'tuner[bench]' ({missing})") from missing


def train_fn(config: dict[str, Any]) -> None:
    """Train on one rank; report each epoch, with a checkpoint from rank 0, as our side does."""
    model = ray.train.torch.prepare_model(make_model())
    optimizer = make_optimizer(model, config["lr"])
    for epoch in range(1, EPOCHS + 1):
        metrics = {"train_loss": train_once(model, optimizer), "loss": evaluate(model)}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, Path(folder) / "state.pt")
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({**metrics, "epoch": epoch}, checkpoint=checkpoint)


def drive(config: dict[str, Any]) -> None:
    """One Tune trial: one Ray Train run."""
    ray.train.torch.TorchTrainer(
        train_fn,
        train_loop_config={"lr": config["lr"]},
        scaling_config=ray.train.ScalingConfig(num_workers=RANKS),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={tune.get_context().get_trial_id()}",
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


class Results(tune.Callback):  # type: ignore[misc]
    """Notes when each result came."""

    def __init__(self) -> None:
        self.found: list[tuple[float, str, int]] = []

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Note the time; the last result of a trial comes twice."""
        del iteration, trials, info
        if (trial.trial_id, result["epoch"]) not in [found[1:] for found in self.found]:
            self.found.append((time.time(), trial.trial_id, result["epoch"]))


def search(trials: int, folder: Path) -> list[tuple[float, str, int]]:
    """Run the trials, one at a time."""
    storage, results = str(folder / "results"), Results()
    found = tune.Tuner(
        drive,
        param_space={"lr": tune.loguniform(LOWER, UPPER), "storage": storage},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(
            name="turnover", storage_path=storage, callbacks=[results], verbose=0
        ),
    ).fit()
    if found.errors:
        raise found.errors[0]
    return results.found


def main() -> None:
    """Run one search on a cluster of its own: the driver function takes a logical CPU too."""
    trials, folder = int(sys.argv[1]), Path(sys.argv[3])
    ray.init(address="local", num_cpus=max(RANKS + 1, os.cpu_count() or 1))
    try:
        results = search(trials, folder)
    finally:
        ray.shutdown()
    tell(folder, results)


if __name__ == "__main__":
    main()
