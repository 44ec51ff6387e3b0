"""Our side of the turnover benchmark: ``python -m tests.benchmarks.turnover_tuner TRIALS FOLDER``.

It writes ``FOLDER/ends.json``: when each trial's last result came, in seconds since the epoch.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def make_experiment(trials: int, folder: Path) -> Experiment:
    """Random search over the learning rate, one trial at a time."""
    values = {
        "name": "turnover",
        "trainable": "tests.benchmarks.turnover_tuner:Linear",
        "search_space": {
            "hyperparameters": {
                "lr": {"type": "float", "lower": LOWER, "upper": UPPER, "log": True}
            }
        },
        "search": {
            "algorithm": "random",
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


def read_ends(journal: Path, trials: int) -> list[float]:
    """When each trial's last result came, by the journal.

    Raises:
        RuntimeError: a trial did not train all its epochs.

    """
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    ends = {
        event["trial"]: event["time"]
        for event in events
        if event["event"] == "result" and event["epoch"] == EPOCHS
    }
    if sorted(ends) != list(range(trials)):
        raise RuntimeError(f"{journal}: trials {sorted(ends)} of {trials} trained {EPOCHS} epochs")
    return [ends[number] for number in range(trials)]


def main() -> None:
    """Run one experiment."""
    trials, folder = int(sys.argv[1]), Path(sys.argv[2])
    experiment = make_experiment(trials, folder)
    start_run(experiment)
    ends = read_ends(experiment.folder / "journal.jsonl", trials)
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
