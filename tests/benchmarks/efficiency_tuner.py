"""The search of the efficiency benchmark: ``python -m tests.benchmarks.efficiency_tuner N FOLDER``.

BOHB over N trials of up to 9 epochs on 2 ranks, as many at a time as there are pairs of cores. It
tells what the journal has of their times.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.harness import read_events, tell
from tests.benchmarks.turnover_toy import LOWER, RANKS, UPPER
from tests.benchmarks.turnover_tuner import Linear
from tuner import Experiment, start_run

EPOCH_SECONDS, MAX_EPOCHS = 0.5, 9


class Timed(Linear):
    """A linear layer whose epochs take a known time."""

    def train_epoch(self) -> Mapping[str, float]:
        time.sleep(EPOCH_SECONDS)
        return super().train_epoch()


def make_experiment(trials: int, folder: Path) -> Experiment:
    """BOHB over the learning rate."""
    values = {
        "name": "efficiency",
        "trainable": "tests.benchmarks.efficiency_tuner:Timed",
        "search_space": {
            "hyperparameters": {
                "lr": {"type": "float", "lower": LOWER, "upper": UPPER, "log": True}
            }
        },
        "search": {
            "algorithm": "bohb",
            "metric": "loss",
            "mode": "min",
            "num_trials": trials,
            "max_epochs": MAX_EPOCHS,
        },
        "resources": {"workers_per_trial": RANKS},
        "storage": str(folder / "runs"),
        "cache": {"dir": str(folder / "cache")},
    }
    return Experiment.model_validate(values)


def read_times(events: list[dict[str, Any]], started: float, slots: int) -> dict[str, Any]:
    """What the journal has of a search whose process ``started`` then.

    Training is what the epochs are made to take; the search, from when the first epoch was due to
    begin to the last result; the start-up is before it.
    """
    results = [event["time"] for event in events if event["event"] == "result"]
    begun = results[0] - EPOCH_SECONDS
    return {
        "epochs": len(results),
        "slots": slots,
        "pauses": sum(event.get("verdict") == "pause" for event in events),
        "resumes": sum(event["event"] == "resume" for event in events),
        "training": len(results) * EPOCH_SECONDS,
        "search": round(results[-1] - begun, 3),
        "start_up": round(begun - started, 3),
    }


def main() -> None:
    """Run one search."""
    trials, folder = int(sys.argv[1]), Path(sys.argv[2])
    started = psutil.Process(os.getpid()).create_time()
    experiment = make_experiment(trials, folder)
    summary = start_run(experiment)
    tell(folder, read_times(read_events(experiment.folder), started, summary.slots))


if __name__ == "__main__":
    main()
