"""From the command to the first epoch, and what commands without a run take.

Run from the repository's root: ``python -m tests.benchmarks.start_up``. Of each command the median
of three is shown. Of the run, the parts: until its first line is out, the trainable and the space
are validated; until the dashboard's, Ray is up; until the first trial starts, its journal is; until
the first epoch begins, the ranks are, and have formed their group.
"""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console

from tests.benchmarks.harness import (
    BenchmarkError,
    describe_machine,
    environment,
    finish,
    make_parser,
    new_folder,
    show_table,
    show_target,
)

TIMES = 3
COMMANDS = {
    "--help": (("--help",), 0.5),
    "list": (("list",), 0.5),
    "validate, a misspelt key (imports nothing heavy)": (("validate", "misspelt.yaml"), 3.0),
    "validate, a Trainable (imports Ray)": (("validate", "trainable.yaml"), 10.0),
    "validate, a Task (imports torch)": (("validate", "task.yaml"), 10.0),
    "validate, a backbone (imports timm)": (("validate", "quickstart"), 10.0),
}
"""Name -> the arguments, and the most seconds it is to take."""
PARTS = ("validated", "Ray is up", "first trial", "first epoch")
MOST_SECONDS = 15.0
"""The target for the whole."""
EXPERIMENT: dict[str, Any] = {
    "name": "start",
    "search_space": {"hyperparameters": {"lr": {"type": "float", "lower": 0.001, "upper": 0.3}}},
    "search": {
        "algorithm": "random",
        "metric": "loss",
        "mode": "min",
        "num_trials": 1,
        "max_epochs": 1,
    },
}
TRAINABLES = {
    "task.yaml": {"trainable": "tests.benchmarks.turnover_tuner:Linear"},
    "trainable.yaml": {"trainable": "tests.examples.plain_trainable:Curve"},
}


def write_experiments(folder: Path) -> None:
    """Write the files that the commands name."""
    for name, trainable in TRAINABLES.items():
        resources = {"resources": {"workers_per_trial": 2}} if name == "task.yaml" else {}
        (folder / name).write_text(yaml.safe_dump({**EXPERIMENT, **trainable, **resources}))
    (folder / "misspelt.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "trainabel": "x"}))


def time_command(arguments: tuple[str, ...], folder: Path) -> float:
    """Seconds that ``python -m tuner ARGUMENTS`` takes.

    Raises:
        BenchmarkError: it failed, or took what is misspelt.

    """
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=folder, env=environment(folder), check=False, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    if done.returncode != ("misspelt.yaml" in arguments):
        raise BenchmarkError(f"tuner {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    return seconds


def time_run(folder: Path) -> dict[str, float]:
    """Part -> the seconds it took, of a run of one trial, by the lines that it prints."""
    begin = time.time()
    marks = ("run ", "dashboard: ", "trial 0 started")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "tuner", "run", "task.yaml"],
        cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    seen: dict[str, float] = {}
    for line in process.stdout:
        for mark in marks:
            if line.startswith(mark):
                seen.setdefault(mark, time.time())
    if process.wait() or len(seen) != len(marks):
        raise BenchmarkError(f"the run ended with code {process.returncode}; it said {list(seen)}")
    return parts([begin, *(seen[mark] for mark in marks), first_epoch(folder / "runs/start")])


def first_epoch(run: Path) -> float:
    """When the first epoch, which takes next to nothing, had ended."""
    events = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return float(next(event["time"] for event in events if event["event"] == "result"))


def parts(moments: list[float]) -> dict[str, float]:
    """Part -> seconds, from when each had begun."""
    seconds = [round(after - before, 2) for before, after in pairwise(moments)]
    return dict(zip(PARTS, seconds, strict=True))


def main() -> None:
    """Measure and show it.

    Raises:
        SystemExit: a command failed.

    """
    given = make_parser(__doc__).parse_args()
    console = Console(highlight=False)
    try:
        with new_folder() as folder:
            write_experiments(folder)
            taken = {
                name: round(median(time_command(arguments, folder) for _ in range(TIMES)), 2)
                for name, (arguments, _) in COMMANDS.items()
            }
            run = time_run(folder)
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    rows = {name: (seconds, COMMANDS[name][1]) for name, seconds in taken.items()}
    show_table(console, "commands", ("", "seconds", "at most"), rows)
    whole = round(sum(run.values()), 2)
    steps = {name: (seconds,) for name, seconds in {**run, "in all": whole}.items()}
    show_table(console, "run, to the end of a first epoch of nothing", ("until", "seconds"), steps)
    met = {f"{name} <= {most:g} s": taken[name] <= most for name, (_, most) in COMMANDS.items()}
    met[f"first epoch <= {MOST_SECONDS:g} s"] = whole <= MOST_SECONDS
    for target, is_met in met.items():
        show_target(console, target, is_met)
    record = {"machine": describe_machine(), "commands": taken, "run": run, "targets": met}
    finish(console, record, given.json)


if __name__ == "__main__":
    main()
