"""Whether memory stays as it is in processes that serve many trials.

Run from the repository's root: ``python -m tests.benchmarks.soak``. One trial of 2 ranks follows
another in the same processes; what the driver and the ranks hold is taken after a tenth of the
trials, after half, and at the end.
"""

from rich.console import Console

from tests.benchmarks.harness import (
    BenchmarkError,
    describe_machine,
    finish,
    make_parser,
    run_side,
    show_table,
    show_target,
)

RANKS, SLOTS = 2, 1
MOST_GROWTH = 0.05
"""The target: from a tenth of the trials to the end, memory grows by no more than this share."""
MOST_KB = {"driver": 50.0, "larger rank": 10.0}
"""The target: what each trial may add meanwhile; the driver holds its results, a rank nothing."""


def growth(marks: list[dict[str, float]], name: str) -> float:
    """From a tenth of the trials to the end, as a share."""
    return round(marks[-1][name] / marks[1][name] - 1, 4)


def kb_a_trial(marks: list[dict[str, float]], name: str) -> float:
    """What each trial adds, from a tenth of them to the end."""
    first, last = marks[1], marks[-1]
    return round(1024 * (last[name] - first[name]) / (last["trials"] - first["trials"]), 1)


def main() -> None:
    """Measure and show it.

    Raises:
        SystemExit: the search failed.

    """
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="one after the other (1,000)")
    given = parser.parse_args()
    console = Console(highlight=False)
    try:
        marks = run_side("many_trials", given.trials, RANKS, SLOTS).told["marks"]
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    names = {"driver": "driver_mb", "larger rank": "ranks_mb"}
    grown = {name: growth(marks, field) for name, field in names.items()}
    added = {name: kb_a_trial(marks, field) for name, field in names.items()}
    rows = {
        name: [*(marks[tenth][field] for tenth in (1, 5, 10)), f"{grown[name]:+.1%}", added[name]]
        for name, field in names.items()
    }
    title = f"MB held after so many of {given.trials:,} trials in one group of 2 ranks"
    show_table(console, title, ("", "10 %", "50 %", "100 %", "from 10 % on", "KB a trial"), rows)
    met = {
        f"the {name} grows by <= {MOST_GROWTH:.0%}": g <= MOST_GROWTH for name, g in grown.items()
    }
    for name, most in MOST_KB.items():
        met[f"the {name} grows by <= {most:g} KB a trial"] = added[name] <= most
    for target, is_met in met.items():
        show_target(console, target, is_met)
    record = {"machine": describe_machine(), "marks": marks, "growth": grown, "kb_a_trial": added}
    finish(console, {**record, "targets": met}, given.json)


if __name__ == "__main__":
    main()
