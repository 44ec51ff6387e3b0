"""What a decision costs as a search grows: asha with random draws, simulated, on 1,000 slots.

``python -m tests.benchmarks.scale`` prints, for 1,000, 10,000 and 100,000 trials, microseconds a
decision in the first and in the last tenth of the search, and memory a trial; each in a process of
its own. A decision is a job for a slot or an answer to a report; drawing, journalling and the
simulation itself count too. Then milliseconds that a model takes for a configuration when it knows
1,000 results, the mean and the most of twenty, the kernel's fit and one result told included.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from search_spaces import load_space, sample
from tuner.search import SearchSettings, build_sampler, build_search
from tuner.search.journal import Journal
from tuner.search.search import Search
from tuner.search.simulation import simulate

TRIALS = (1_000, 10_000, 100_000)
SLOTS, MAX_EPOCHS = 1_000, 81


def measure(trials: int) -> dict[str, Any]:
    """Run one search; seconds are taken at every tenth of its trials."""
    settings = SearchSettings.model_validate(
        {
            "algorithm": "asha", "num_trials": trials, "max_epochs": MAX_EPOCHS,
            "metric": "loss", "mode": "min",
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, Journal(_touched(folder)) as journal:
        search = build_search(settings, load_space("fine_tune"), journal)
        marks: list[tuple[float, int]] = []
        events = 0

        def listen(event: dict[str, Any], search: Search) -> None:
            nonlocal events
            events += event["event"] in ("start", "resume", "result")
            if event["event"] == "start" and len(search.trials) % (trials // 10) == 0:
                marks.append((time.perf_counter(), events))

        search.subscribe(listen)
        before, started = _memory(), time.perf_counter()
        simulate(search, _loss, slots=SLOTS)
        journal_bytes = journal.path.stat().st_size
        seconds = time.perf_counter() - started
        first, last = (marks[0][0] - started, marks[0][1]), _between(marks[-2], marks[-1])
    return {
        "trials": trials,
        "decisions": events,
        "seconds": seconds,
        "us_a_decision": 1e6 * seconds / events,
        "first_tenth_us": 1e6 * first[0] / first[1],
        "last_tenth_us": 1e6 * last[0] / last[1],
        "kb_a_trial": (_memory() - before) / trials,
        "journal_kb_a_trial": journal_bytes / 1024 / trials,
    }


def suggestion(sampler: str) -> dict[str, Any]:
    """What a configuration costs after 1,000 results at three rungs."""
    settings = SearchSettings.model_validate({"algorithm": "asha", "sampler": sampler})
    space = load_space("fine_tune")
    model = build_sampler(settings, space)
    for number in range(1000):
        _tell(model, sample(space, number), number)
    took = []
    for number in range(1000, 1020):
        started = time.perf_counter()
        config, _ = model.propose(number)
        _tell(model, config, number)
        took.append(1e3 * (time.perf_counter() - started))
    return {"sampler": sampler, "mean_ms": sum(took) / len(took), "most_ms": max(took)}


def _tell(model: Any, config: dict[str, Any], number: int) -> None:
    model.started(config)
    model.tell(config, (1, 3, 9)[number % 3], _loss(config, 1))


def _touched(folder: str) -> Path:
    path = Path(folder) / "journal.jsonl"
    path.touch()
    return path


def _between(before: tuple[float, int], after: tuple[float, int]) -> tuple[float, int]:
    return after[0] - before[0], after[1] - before[1]


def _memory() -> int:
    """The most this process has held so far, in KB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _loss(config: dict[str, Any], epoch: int) -> float:
    return float(config["learning_rate"]) + config["label_smoothing"] / epoch


def main() -> None:
    """Measure each size in a process of its own, and print the table."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    for trials in TRIALS:
        command = [sys.executable, "-m", "tests.benchmarks.scale", str(trials)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(done.stdout)
        print("  ".join(f"{key} {value:,.6g}" for key, value in figures.items()), flush=True)
    for sampler in ("random", "gp", "tpe", "kde"):
        name, mean, most = suggestion(sampler).values()
        print(f"{name}: {mean:.1f} ms a configuration, at most {most:.1f}")


if __name__ == "__main__":
    main()
