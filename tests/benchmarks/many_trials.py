"""A long search of short trials: ``python -m tests.benchmarks.many_trials N RANKS SLOTS FOLDER``.

A trial is one epoch of a linear layer. The benchmarks of scale and soak read what it tells.
"""

import sys
import threading
import time
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.harness import read_events, tell
from tests.benchmarks.turnover_toy import LOWER, UPPER
from tuner import Experiment, start_run

MB = 2**20
INTERVAL_SECONDS = 0.1
"""Between two looks at the driver's memory."""
TENTHS = range(11)


def make_experiment(trials: int, ranks: int, slots: int, folder: Path) -> Experiment:
    """Random search over the learning rate; all fits two cores."""
    values = {
        "name": "many",
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
            "max_epochs": 1,
        },
        "resources": {
            "workers_per_trial": ranks,
            "max_concurrent_trials": slots,
            "cpus_per_worker": min(1, 2 / (ranks * slots)),
        },
        "storage": str(folder / "runs"),
        "cache": {"dir": str(folder / "cache")},
    }
    return Experiment.model_validate(values)


@contextmanager
def watched() -> Iterator[list[tuple[float, float]]]:
    """(seconds since the epoch, MB that this process holds), a new pair now and then."""
    found: list[tuple[float, float]] = []
    process, ended = psutil.Process(), threading.Event()

    def look() -> None:
        while not ended.wait(INTERVAL_SECONDS):
            found.append((time.time(), process.memory_info().rss / MB))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def marks(
    events: list[dict[str, Any]], memory: list[tuple[float, float]]
) -> list[dict[str, float]]:
    """Where the search stood with its first result and after every tenth of them.

    ``ranks_mb`` is what the larger rank of the trial that had just ended held, on average over ten
    results; the driver's memory is the one that was last looked at by then.
    """
    results = [event for event in events if event["event"] == "result"]
    times = [at for at, _ in memory]
    found = []
    for tenth in TENTHS:
        last = max(0, len(results) * tenth // 10 - 1)
        near = results[max(0, last - 9) : last + 1]
        at = results[last]["time"]
        found.append(
            {
                "trials": last + 1,
                "seconds": round(at - results[0]["time"], 3),
                "driver_mb": round(memory[max(0, bisect(times, at) - 1)][1], 1),
                "ranks_mb": round(sum(r["metrics"]["memory_mb"] for r in near) / len(near), 1),
            }
        )
    return found


def main() -> None:
    """Run one search."""
    trials, ranks, slots = map(int, sys.argv[1:4])
    folder = Path(sys.argv[4])
    experiment = make_experiment(trials, ranks, slots, folder)
    with watched() as memory:
        summary = start_run(experiment)
    events = read_events(experiment.folder)
    ended = sum(event["event"] == "result" for event in events)
    if ended != trials or summary.actors != slots:
        raise SystemExit(f"{ended} of {trials} trials ended, on {summary.actors} actors")
    tell(folder, {"marks": marks(events, memory), "actors": summary.actors})


if __name__ == "__main__":
    main()
