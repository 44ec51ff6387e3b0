"""A whole search, and the time to a good model: ours beside what one writes with Tune or Optuna.

Run from the repository's root: ``python -m tests.benchmarks.end_to_end``. All sides fine-tune the
same EfficientNet-Lite0 on digits at 64 px with the same Task, for as many epochs, on the same
configurations (learning rate and weight decay) with the same seeds in the same order, one trial at
a time. ``TorchTrainer`` uses 2 ranks; Optuna's loop, which is plain torch, one process with as many
threads; ours once the one, once the other. Ours alone saves a checkpoint after each epoch. The two
figures are the wall time of the search, and until a result reaches the validation accuracy that is
wanted, both from the start of the process. The small size (``--trials=3 --images=30``) may be too
small to reach it.
"""

from typing import Any

from rich.console import Console

from tests.benchmarks.harness import (
    BenchmarkError,
    describe_machine,
    finish,
    make_parser,
    run_side,
    show_table,
)

OURS = ("tuner", "tuner_1")
SIDES = {
    "tune": "Ray Tune + TorchTrainer, 2 ranks",
    "optuna": "Optuna, a plain torch loop",
    "tuner": "tuner, 2 ranks",
    "tuner_1": "tuner, 1 rank of 2 threads",
}
TARGET = 0.97


def complete(told: list[list[float]], epochs: int) -> list[tuple[float, float]]:
    """The results of a side.

    Raises:
        BenchmarkError: it did not train so many epochs.

    """
    if len(told) != epochs:
        raise BenchmarkError(f"{len(told)} of {epochs} epochs were trained")
    return [(at, accuracy) for at, accuracy in told]


def reached(results: list[tuple[float, float]], target: float) -> float | None:
    """When the first of (seconds, accuracy) came that is as good; None: none is."""
    return next((at for at, accuracy in sorted(results) if accuracy >= target), None)


def gaps(found: dict[str, dict[str, Any]]) -> list[str]:
    """Where a peer is ahead, and by how much."""
    words = {"seconds": "the whole search", "to_target": f"val_accuracy {TARGET:g}"}
    return [
        f"{SIDES[name]}: {label} takes {row[key]:.3g} s, {SIDES[own]} {ours:.3g} s"
        for key, label in words.items()
        for own in OURS
        if (ours := found[own][key]) is not None
        for name, row in found.items()
        if name not in OURS and row[key] is not None and row[key] < ours
    ]


def main() -> None:
    """Measure all sides and show them.

    Raises:
        SystemExit: a side failed, or Ctrl-C.

    """
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=32, help="of each search (32)")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial (2)")
    parser.add_argument("--images", type=int, default=0, help="of each class; 0: all (0)")
    given = parser.parse_args()
    console = Console(highlight=False)
    found: dict[str, dict[str, Any]] = {}
    try:
        for name, title in SIDES.items():
            console.print(f"{title} ...", style="dim")
            ran = run_side("end_to_end_side", name, given.trials, given.epochs, given.images)
            results = complete(ran.told, given.trials * given.epochs)
            found[name] = {
                "seconds": round(ran.seconds, 1),
                "to_target": reached(results, TARGET),
                "best": round(max(accuracy for _, accuracy in results), 4),
            }
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted") from None
    title = f"{given.trials} trials of {given.epochs} epochs, digits at 64 px"
    headings = ("", "the search, s", f"to {TARGET:g}, s", "best val_accuracy")
    show_table(console, title, headings, {SIDES[n]: list(row.values()) for n, row in found.items()})
    if all(row["to_target"] is None for row in found.values()):
        console.print(f"no side reaches {TARGET:g}: too few trials, epochs or images")
    record = {"machine": describe_machine("optuna"), "sides": found, "gaps": gaps(found)}
    sizes = {"trials": given.trials, "epochs": given.epochs, "images": given.images}
    finish(console, {**record, **sizes}, given.json)


if __name__ == "__main__":
    main()
