"""What pretrained weights are worth: fine-tuning from them beside training from scratch.

Run from the repository's root: ``python -m tests.benchmarks.pretraining``. An EfficientNet-Lite0 is
trained on the digits, all layers at one learning rate, for the same few epochs either way; only
``weights`` differs. Each start gets the learning rate that serves it best: all are tried with one
seed, and the best is trained anew with the seeds that are shown.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.harness import describe_machine, make_parser
from trainables import Context
from trainables.image_classification.config import Settings
from trainables.image_classification.task import ImageClassification

STARTS = {"pretrained": "default", "from scratch": "none"}
"""Name -> the setting ``weights``."""
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEARCH_SEED = 0
"""The learning rate is chosen with it, and nothing that is shown comes of it."""
SETTINGS = {  # as fine_tune has them by default, but for what digits and a random network forbid
    "data": "digits",
    "optimizer": "adamw",
    "weight_decay": 1e-2,
    "batch_size": 32,
    "warmup_epochs": 1,
    "label_smoothing": 0.1,
    "rotation": 10,
    "horizontal_flip": 0.0,
    "backbone_lr_scale": 1.0,
}


@dataclass(frozen=True)
class Training:
    """One training, of which only this differs from the others."""

    start: str
    learning_rate: float
    seed: int


Curves = dict[Training, list[float]]
"""The accuracies after each epoch."""


def train(
    training: Training, settings: dict[str, Any], epochs: int, cache_dir: Path
) -> list[float]:
    """Train once, on one thread; the validation accuracy after each epoch."""
    torch.set_num_threads(1)
    context = Context(seed=training.seed, max_epochs=epochs, cache_dir=cache_dir)
    own = {"weights": STARTS[training.start], "learning_rate": training.learning_rate}
    task = ImageClassification(Settings.model_validate({**settings, **own}), context)
    accuracies = []
    for epoch in range(epochs):
        context.start_epoch(epoch)
        task.train_epoch()
        accuracies.append(task.evaluate()["val_accuracy"])
    return accuracies


def train_all(
    trainings: Iterable[Training],
    one: Callable[[Training], list[float]],
    pool: Executor,
    console: Console,
) -> Curves:
    """Train each, as many at once as ``pool`` has processes."""
    curves = {}
    listed = list(trainings)
    for training, curve in zip(listed, pool.map(one, listed), strict=True):
        console.print(training, [round(accuracy, 3) for accuracy in curve], style="dim")
        curves[training] = curve
    return curves


def measure(trainer: Callable[[Iterable[Training]], Curves], seeds: int) -> dict[str, Any]:
    """By start: the accuracies by learning rate, the best of these, and its curves by seed."""
    searched = trainer(Training(*of, SEARCH_SEED) for of in product(STARTS, LEARNING_RATES))
    by_rate = {start: _of(start, searched, "learning_rate") for start in STARTS}
    best = {start: best_rate(by_rate[start]) for start in STARTS}
    shown = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + seeds)
    trained = trainer(Training(start, best[start], seed) for start in STARTS for seed in shown)
    return {
        start: {
            "searched": by_rate[start],
            "learning_rate": best[start],
            "by_seed": _of(start, trained, "seed"),
        }
        for start in STARTS
    }


def _of(start: str, curves: Curves, key: str) -> dict[Any, list[float]]:
    """The curves of one start, by what ``key`` names."""
    return {getattr(of, key): curve for of, curve in curves.items() if of.start == start}


def best_rate(by_rate: dict[float, list[float]]) -> float:
    """The learning rate with the best accuracy after the last epoch; of equal ones, the lowest."""
    return max(sorted(by_rate), key=lambda rate: by_rate[rate][-1])


def show(found: dict[str, dict[str, Any]], image_size: int, console: Console) -> None:
    """The table: the mean over the seeds, and their range."""
    curves = {start: np.array(list(of["by_seed"].values())) for start, of in found.items()}
    seeds, epochs = next(iter(curves.values())).shape
    title = f"val_accuracy, efficientnet_lite0 on digits at {image_size} px, mean of {seeds} seeds"
    table = Table(title=title)
    epoch_headings = [f"epoch {epoch}" for epoch in range(1, epochs + 1)]
    for heading in ("", "learning rate", *epoch_headings):
        table.add_column(heading, justify="right" if heading else "left")
    for start, of_seeds in curves.items():
        rate = found[start]["learning_rate"]
        at_edge = "*" if rate in (LEARNING_RATES[0], LEARNING_RATES[-1]) else ""
        cells = [f"{a.mean():.3f} ({a.min():.2f}-{a.max():.2f})" for a in of_seeds.T]
        table.add_row(start, f"{rate:g}{at_edge}", *cells)
    table.caption = f"learning rate: the best of {', '.join(f'{r:g}' for r in LEARNING_RATES)}"
    console.print(table)
    if any(of["learning_rate"] in (LEARNING_RATES[0], LEARNING_RATES[-1]) for of in found.values()):
        console.print("*: at the end of the range; one beyond it may be better still")
    console.print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))


def main() -> None:
    """Measure both starts and show them."""
    parser = make_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="of each training (3)")
    parser.add_argument("--seeds", type=int, default=3, help="that the table is of (3)")
    parser.add_argument("--image-size", type=int, default=48, help="in pixels (48)")
    parser.add_argument("--images", type=int, help="of each class; all where it is left out")
    given = parser.parse_args()
    console = Console(highlight=False)
    settings = {
        **SETTINGS,
        "image_size": given.image_size,
        "max_images_per_class": given.images,
    }
    with tempfile.TemporaryDirectory() as folder:
        one = partial(train, settings=settings, epochs=given.epochs, cache_dir=Path(folder))
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
            found = measure(partial(train_all, one=one, pool=pool, console=console), given.seeds)
    show(found, given.image_size, console)
    if given.json:
        record = {"machine": describe_machine(), "settings": settings, "starts": found}
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
