"""Our side of the turnover benchmark.

``python -m tests.benchmarks.turnover_tuner TRIALS plain|pausing FOLDER`` tells of every result when
it came, of which trial and epoch.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import read_events, tell
from tests.benchmarks.turnover_toy import (
    EPOCHS,
    LOWER,
    PAUSING,
    RANKS,
    UPPER,
    evaluate,
    make_model,
    make_optimizer,
    train_once,
)
from tuner import Context, Experiment, Task, start_run


class Linear(Task):
    """A linear layer under DDP."""

    def __init__(self, config: dict[str, Any], context: Context) -> None:
        super().__init__(config, context)
        self.model = context.parallel(make_model())
        self.optimizer = make_optimizer(self.model, config["lr"])

    def train_epoch(self) -> Mapping[str, float]:
        return {"train_loss": self.context.mean(train_once(self.model, self.optimizer), 1)}

    def evaluate(self) -> Mapping[str, float]:
        return {"loss": self.context.mean(evaluate(self.model), 1)}

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def make_experiment(trials: int, folder: Path, *, pausing: bool) -> Experiment:
    """Random search, one trial at a time; asha, which pauses and resumes, where that is wanted."""
    values = {
        "name": "turnover",
        "trainable": "tests.benchmarks.turnover_tuner:Linear",
        "search_space": {
            "hyperparameters": {
                "lr": {"type": "float", "lower": LOWER, "upper": UPPER, "log": True}
            }
        },
        "search": {
            "algorithm": "asha" if pausing else "random",
            "metric": "loss",
            "mode": "min",
            "num_trials": trials,
            "max_epochs": EPOCHS,
        },
        "resources": {"workers_per_trial": RANKS, "max_concurrent_trials": 1},
        "storage": str(folder / "runs"),
        "cache": {"dir": str(folder / "cache")},
    }
    return Experiment.model_validate(values)


def main() -> None:
    """Run one experiment."""
    trials, pausing, folder = int(sys.argv[1]), sys.argv[2] == PAUSING, Path(sys.argv[3])
    experiment = make_experiment(trials, folder, pausing=pausing)
    start_run(experiment)
    results = (e for e in read_events(experiment.folder) if e["event"] == "result")
    tell(folder, [(e["time"], e["trial"], e["epoch"]) for e in results])


if __name__ == "__main__":
    main()
