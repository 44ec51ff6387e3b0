"""How much of the time training takes, in a search that pauses and resumes: its bound is 1.

Run from the repository's root: ``python -m tests.benchmarks.efficiency``. BOHB runs trials of up to
9 epochs, each of which takes half a second, on 2 ranks. Efficiency is training seconds ÷ (wall
seconds times slots), from the moment when the first epoch was due to begin to the last result. What
is before it is the start-up: the imports, Ray's start, and that of the ranks. What that does not
tell is printed with it.
"""

from typing import Any

from rich.console import Console

from tests.benchmarks.harness import (
    BenchmarkError,
    describe_machine,
    finish,
    load,
    make_parser,
    run_side,
    show_table,
    show_target,
)

CAVEATS = """an epoch sleeps: it takes no processor from the search, as one on a GPU takes little
0.5 s an epoch count as training: all else, the evaluation and the checkpoint too, as lost
slots: {slots}; one that idles at the end of the search, while others train, counts as lost
a trial starts or goes on every {often:.1f} epochs; where trials train for longer, less is lost
the model has a few bytes: what large checkpoints take is not in it"""
"""What a reader must know to judge the figure."""
LEAST_EFFICIENCY, MOST_START_UP = 0.90, 15.0
"""The targets."""


def efficiency(told: dict[str, Any]) -> float:
    """The share of the slots' time that is training."""
    return round(float(told["training"] / (told["search"] * told["slots"])), 3)


def main() -> None:
    """Measure and show it.

    Raises:
        SystemExit: the search failed.

    """
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=27, help="of the search (27)")
    given = parser.parse_args()
    console, busy = Console(highlight=False), load()
    try:
        told = run_side("efficiency_tuner", given.trials).told
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    share = efficiency(told)
    headings = (
        "", "slots", "epochs", "pauses", "resumes", "start-up, s", "search, s", "training, s",
        "efficiency",
    )  # fmt: skip
    names = ("slots", "epochs", "pauses", "resumes", "start_up", "search", "training")
    row = {f"BOHB, {given.trials} trials": [*(told[name] for name in names), share]}
    show_table(console, "epochs of 0.5 s on 2 ranks", headings, row)
    often = told["epochs"] / (given.trials + told["resumes"])
    console.print(CAVEATS.format(slots=told["slots"], often=often))
    met = {
        f"efficiency >= {LEAST_EFFICIENCY:g}": share >= LEAST_EFFICIENCY,
        f"start-up <= {MOST_START_UP:g} s": told["start_up"] <= MOST_START_UP,
    }
    for target, is_met in met.items():
        show_target(console, target, is_met)
    record = {"machine": describe_machine(), "load_before": busy, **told, "efficiency": share}
    finish(console, {**record, "targets": met}, given.json)


if __name__ == "__main__":
    main()
