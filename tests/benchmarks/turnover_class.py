"""A peer in the turnover benchmark: Ray Tune's class trainable, a new process for each trial.

``python -m tests.benchmarks.turnover_class TRIALS plain|pausing [reuse] FOLDER`` tells of every
result when it came, of which trial and epoch. As docs.ray.io/en/latest/tune/api/trainable.html has
it; ``reuse_actors``, off by default, is on with ``reuse``: one process for all trials. The toy is
trained in the trial's one process, without a process group: less work than on the sides with two
ranks.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tests.benchmarks.harness import tell
from tests.benchmarks.turnover_toy import (
    EPOCHS,
    LOWER,
    PAUSING,
    UPPER,
    evaluate,
    load,
    make_model,
    make_optimizer,
    save,
    train_once,
)


class Linear(tune.Trainable):  # type: ignore[misc]
    """A linear layer in one process."""

    def setup(self, config: dict[str, Any]) -> None:
        """Build it."""
        self.model = make_model()
        self.optimizer = make_optimizer(self.model, config["lr"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be another trial, where processes are reused."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train for one epoch."""
        loss = train_once(self.model, self.optimizer)
        done = self.iteration + 1 == EPOCHS
        metrics = {"train_loss": loss, "loss": evaluate(self.model)}
        return {**metrics, "should_checkpoint": True, "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the state."""
        save(Path(checkpoint_dir) / "state.pt", self.model, self.optimizer, self.iteration)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Read the state."""
        load(Path(checkpoint) / "state.pt", self.model, self.optimizer)


class InTurn(FIFOScheduler):  # type: ignore[misc]
    """Gives each trial one epoch at a time, those that have had the fewest first."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Pause it."""
        del tune_controller, trial, result
        return str(TrialScheduler.PAUSE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The one that is furthest behind."""
        waiting = [
            trial
            for trial in tune_controller.get_trials()
            if trial.status in (Trial.PENDING, Trial.PAUSED)
        ]
        return min(waiting, key=lambda t: t.last_result.get("training_iteration", 0), default=None)


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
        """Note the time."""
        del iteration, trials, info
        self.found.append((time.time(), trial.trial_id, result["training_iteration"]))


def main() -> None:
    """Run one search on a cluster of its own, with room for one trial."""
    trials, pausing, folder = int(sys.argv[1]), sys.argv[2] == PAUSING, Path(sys.argv[-1])
    results = Results()
    ray.init(address="local", num_cpus=1, _temp_dir=os.environ["RAY_TMPDIR"])
    try:
        tune.Tuner(
            Linear,
            param_space={"lr": tune.loguniform(LOWER, UPPER)},
            tune_config=tune.TuneConfig(
                num_samples=trials,
                scheduler=InTurn() if pausing else FIFOScheduler(),
                reuse_actors="reuse" in sys.argv,
            ),
            run_config=tune.RunConfig(
                name="turnover", storage_path=str(folder / "runs"), callbacks=[results], verbose=0
            ),
        ).fit()
    finally:
        ray.shutdown()
    tell(folder, results.found)


if __name__ == "__main__":
    main()
