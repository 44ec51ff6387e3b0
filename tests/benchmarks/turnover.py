"""What each extra trial costs, and each pause and resume: ours beside five peers.

Run from the repository's root: ``python -m tests.benchmarks.turnover``. All sides train the same
linear layer for 3 epochs, one trial at a time, each search in a process (and, with Ray, on a local
cluster) of its own. Three of the peers do so in one process, as their documentation has it; the
others on 2 gloo ranks. An extra trial is measured twice: by the wall time of a search of N trials
against a search of one, and within the search of N, from the last result of its first trial to that
of its last. The first is the coarser: two starts of a cluster differ by seconds, so take more
trials, or a quiet machine. A pause and resume is the time between two results of which the second
is of a trial that was paused, the epoch, which takes next to none, included. Before anything is
measured, each side runs one trial, so that the files that it reads are cached for all alike.
"""

import argparse
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console

from tests.benchmarks.harness import (
    BenchmarkError,
    Ran,
    describe_machine,
    finish,
    make_parser,
    run_side,
    show_table,
    show_target,
)

EPOCHS, PAUSING = 3, "pausing"  # as in turnover_toy, which imports torch
MOST_SECONDS, LEAST_RATIO = 0.5, 50.0
"""The targets: ours at most so many seconds an extra trial, and at most 1/50 of the recipe's."""
MEASURES = {"extra_by_wall": "by wall time", "extra_within_run": "within one run"}

Result = tuple[float, str | int, int]
"""When it came, in seconds since the epoch, of which trial, and after how many epochs."""


class Side(NamedTuple):
    """Who is measured."""

    title: str
    ranks: int
    pauses: bool = True
    module: str = ""
    """Where it is, if not by its name."""
    options: tuple[str, ...] = ()
    """What its module is told beside the trials and the pauses."""


OURS, RECIPE = "tuner", "recipe"
SIDES = {
    RECIPE: Side("Ray Tune + Ray Train", 2, pauses=False),
    "class": Side("Ray Tune, class trainable", 1),
    "reusing": Side(
        "Ray Tune, class trainable, reuse_actors", 1, module="class", options=("reuse",)
    ),
    "syne": Side("Syne Tune, local backend", 1),
    "optuna": Side("Optuna + torchrun", 2, pauses=False),
    OURS: Side("tuner", 2),
}


@dataclass(frozen=True)
class Cost:
    """Wall seconds of one side."""

    trials: int
    first_trial: float
    """The search of one trial, from the start of its process to its end."""
    all_trials: float
    """The search of all trials, likewise."""
    extra_by_wall: float
    extra_within_run: float
    pause_and_resume: float | None = None
    """The mean; None: the side has none."""


def run(name: str, trials: int, mode: str = "plain") -> Ran:
    """Run a side's search once."""
    side = SIDES[name]
    return run_side(f"turnover_{side.module or name}", trials, mode, *side.options)


def measure(name: str, trials: int, console: Console) -> Cost:
    """Run a side with one trial, with ``trials``, and where it can be with pauses."""
    console.print(f"{SIDES[name].title}: 1 and {trials} trials ...", style="dim")
    first = run(name, 1).seconds
    wall, told = run(name, trials)
    ends = read_ends(map(tuple, told), trials)
    paused = None
    if SIDES[name].pauses:
        results = sorted(map(tuple, run(name, max(trials, 3), PAUSING).told))
        paused = round(mean(switches(results)), 4)
    return Cost(
        trials=trials,
        first_trial=round(first, 3),
        all_trials=round(wall, 3),
        extra_by_wall=round((wall - first) / (trials - 1), 4),
        extra_within_run=round((ends[-1] - ends[0]) / (trials - 1), 4),
        pause_and_resume=paused,
    )


def read_ends(results: Iterable[Result], trials: int) -> list[float]:
    """When the last result of each trial came.

    Raises:
        BenchmarkError: not all trials trained all their epochs.

    """
    ends = sorted(at for at, _, epoch in results if epoch == EPOCHS)
    if len(ends) != trials:
        raise BenchmarkError(f"{len(ends)} of {trials} trials trained {EPOCHS} epochs")
    return ends


def switches(results: list[Result]) -> list[float]:
    """Seconds from a trial's result to the next one, where that is of one that was paused.

    Raises:
        BenchmarkError: none was.

    """
    found = [
        after - before
        for (before, left, _), (after, resumed, epoch) in pairwise(results)
        if resumed != left and epoch > 1
    ]
    if not found:
        raise BenchmarkError("no trial was resumed")
    return found


def check_targets(costs: dict[str, Cost]) -> dict[str, dict[str, bool | None]]:
    """Target -> measure -> whether it is met; None where the measure is lost in the noise."""
    targets: dict[str, dict[str, bool | None]] = {}
    for measure, label in MEASURES.items():
        our, their = (getattr(costs[side], measure) for side in (OURS, RECIPE))
        known = our > 0 and their > 0
        met = {
            f"an extra trial <= {MOST_SECONDS:g} s": our <= MOST_SECONDS,
            f"<= 1/{LEAST_RATIO:g} of Ray Train's": our * LEAST_RATIO <= their,
        }
        for target, is_met in met.items():
            targets.setdefault(target, {})[label] = is_met if known else None
    return targets


def show(costs: dict[str, Cost], console: Console) -> None:
    """The table, and which targets are met."""
    headings = (
        "", "ranks", "trials", "first trial", *(f"extra, {label}" for label in MEASURES.values()),
        "pause and resume",
    )  # fmt: skip
    rows = {
        SIDES[name].title: (
            SIDES[name].ranks, cost.trials, cost.first_trial,
            *(getattr(cost, measure) for measure in MEASURES), cost.pause_and_resume,
        )
        for name, cost in costs.items()
    }  # fmt: skip
    show_table(console, "wall seconds, 3 epochs of a linear layer", headings, rows)
    if any(getattr(cost, measure) <= 0 for cost in costs.values() for measure in MEASURES):
        console.print("below 0: less than what two starts differ by")
    for target, by_measure in check_targets(costs).items():
        for label, met in by_measure.items():
            show_target(console, f"{target}, {label}", met)


def gaps(costs: dict[str, Cost]) -> list[str]:
    """Where a peer is ahead, and by how much."""
    measures = {
        "first_trial": "the first trial, with the start",
        "extra_within_run": "an extra trial",
        "pause_and_resume": "a pause and resume",
    }
    ours = costs[OURS]
    return [
        f"{SIDES[name].title}: {label} takes {theirs:.3g} s, ours {getattr(ours, measure):.3g} s"
        for measure, label in measures.items()
        for name, cost in costs.items()
        if (theirs := getattr(cost, measure)) is not None and theirs < getattr(ours, measure)
    ]


def main() -> None:
    """Measure all sides and show them.

    Raises:
        SystemExit: a side failed, or Ctrl-C.

    """
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=_at_least_two, default=20, help="of ours (default: 20)")
    parser.add_argument("--peer-trials", type=_at_least_two, default=4, help="of each peer's (4)")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    counts = dict.fromkeys(SIDES, arguments.peer_trials) | {OURS: arguments.trials}
    try:
        for name in counts:
            console.print(f"{SIDES[name].title}: one trial, not measured ...", style="dim")
            run(name, 1)
        costs = {name: measure(name, trials, console) for name, trials in counts.items()}
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
    show(costs, console)
    record: dict[str, Any] = {
        "machine": describe_machine("syne-tune", "optuna"),
        "sides": {name: {"title": SIDES[name].title, **asdict(of)} for name, of in costs.items()},
        "targets": check_targets(costs),
        "gaps": gaps(costs),
    }
    finish(console, record, arguments.json)


def _at_least_two(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of trials from 2 up")
    return int(text)


if __name__ == "__main__":
    main()
