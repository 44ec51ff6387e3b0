"""What a decision costs as a search grows, and what a trial does through Ray.

``python -m tests.benchmarks.scale`` simulates asha with random draws on 1,000 slots, and prints for
1,000, 10,000 and 100,000 trials microseconds a decision in the first and in the last tenth of the
search, and memory a trial; each in a process of its own. A decision is a job for a slot or an
answer to a report; drawing, journalling and the simulation itself count too. Then milliseconds that
a model takes for a configuration when it knows 1,000 results, the mean and the most of twenty, the
kernel's fit and one result told included.

``python -m tests.benchmarks.scale --ray 100 1000 5000`` runs so many trials of one epoch of nothing
through Ray, two at a time: milliseconds a trial from the first result to the last, and what the
driver holds more at the end than at the first result.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces import load_space, sample
from tests.benchmarks.harness import (
    BenchmarkError,
    describe_machine,
    finish,
    make_parser,
    run_side,
    show_table,
    show_target,
)
from tuner.search import SearchSettings, build_sampler, build_search
from tuner.search.journal import Journal
from tuner.search.search import Search
from tuner.search.simulation import simulate

TRIALS = (1_000, 10_000, 100_000)
SLOTS, MAX_EPOCHS = 1_000, 81
RAY_SLOTS = 2
MOST_GROWTH = 1.3
"""The target: what a trial takes in the longest search, as a multiple of the shortest's."""
MOST_KB = 50.0
"""The target: what each trial may leave in the driver, so that 100,000 of them take 5 GB."""


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


def through_ray(trials: int) -> dict[str, float]:
    """What a trial takes, and what it leaves in the driver."""
    return summarise(run_side("many_trials", trials, 1, RAY_SLOTS).told["marks"])


def summarise(marks: list[dict[str, float]]) -> dict[str, float]:
    """Milliseconds a trial, in all and in the last tenth, and KB that each adds to the driver."""
    first, before, last = marks[0], marks[-2], marks[-1]
    late = (last["seconds"] - before["seconds"]) / (last["trials"] - before["trials"])
    count = last["trials"] - first["trials"]
    return {
        "ms_a_trial": round(1e3 * last["seconds"] / count, 2),
        "ms_at_the_end": round(1e3 * late, 2),
        "driver_mb": last["driver_mb"],
        "kb_a_trial": round(1024 * (last["driver_mb"] - first["driver_mb"]) / count, 1),
    }


def show_ray(found: dict[int, dict[str, float]], console: Console) -> dict[str, bool]:
    """The table; returns which targets are met."""
    rows = {f"{trials:,}": list(row.values()) for trials, row in found.items()}
    headings = ("trials", "ms a trial", "in the last tenth", "driver, MB", "KB a trial")
    show_table(console, "trials of one epoch of nothing, through Ray", headings, rows)
    least, most = (found[trials]["ms_a_trial"] for trials in (min(found), max(found)))
    target = f"ms a trial with {max(found):,} <= {MOST_GROWTH:g} times that with {min(found):,}"
    met = {target: most <= MOST_GROWTH * least}
    kb = found[max(found)]["kb_a_trial"]
    met[f"KB a trial with {max(found):,} <= {MOST_KB:g}"] = kb <= MOST_KB
    for name, is_met in met.items():
        show_target(console, name, is_met)
    return met


def show_simulated(console: Console) -> dict[str, Any]:
    """Each size in a process of its own."""
    rows = {}
    for trials in TRIALS:
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--size", str(trials)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[f"{trials:,}"] = json.loads(done.stdout)
    columns = ("us_a_decision", "first_tenth_us", "last_tenth_us", "kb_a_trial")
    headings = ("trials", "us a decision", "in the first tenth", "in the last", "KB a trial")
    cells = {name: [row[column] for column in columns] for name, row in rows.items()}
    show_table(console, "asha, simulated on 1,000 slots", headings, cells)
    models = {name: suggestion(name) for name in ("random", "gp", "tpe", "kde")}
    shown = {name: (found["mean_ms"], found["most_ms"]) for name, found in models.items()}
    title = "ms a configuration, after 1,000 results"
    show_table(console, title, ("", "mean", "most"), shown)
    return {"simulated": rows, "suggestions": models}


def main() -> None:
    """Measure what is asked for, and print the tables.

    Raises:
        SystemExit: a search failed.

    """
    parser = make_parser(__doc__)
    parser.add_argument("--ray", type=int, nargs="+", metavar="TRIALS", help="through Ray")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.size:
        print(json.dumps(measure(given.size)))
        return
    console = Console(highlight=False)
    record: dict[str, Any] = {"machine": describe_machine()}
    try:
        if given.ray:
            found = {trials: through_ray(trials) for trials in given.ray}
            record |= {"ray": found, "targets": show_ray(found, console)}
        else:
            record |= show_simulated(console)
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    finish(console, record, given.json)


if __name__ == "__main__":
    main()
