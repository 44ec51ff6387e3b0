"""Images a second of one rank of ours, beside a plain loop in torch over the same data.

Run from the repository's root: ``python -m tests.benchmarks.training_loop``. Both sides train all
layers of an EfficientNet-Lite0 on a part of the digits at 64 px, from the same weights, with the
same AdamW, batch size, augmentation, memory layout and threads, in this one process. They take
turns, an epoch each, and in every round another goes first; a first epoch of each is not counted.
Evaluation is not in it. ``--parallel`` compares the ways to share the work among ranks instead, see
:mod:`tests.benchmarks.parallel_ways`.
"""

import copy
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from tests.benchmarks import parallel_ways
from tests.benchmarks.harness import describe_machine, make_parser
from trainables import Context
from trainables.image_classification.backbones import normalisation
from trainables.image_classification.config import Settings
from trainables.image_classification.task import ImageClassification

LEAST_SHARE = 0.9
"""The target: ours reaches at least so much of the plain loop's images a second."""
WARM_UP = 1
"""Epochs of each side before those that count."""
PLAIN, OURS = "plain loop", "ours"
SETTINGS = {
    "data": "digits",
    "image_size": 64,
    "max_images_per_class": 48,
    "horizontal_flip": 0.5,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
}


class Side(Protocol):
    """One way to train."""

    def train(self, epoch: int) -> int:
        """Train for one epoch, counted from 0; returns how many images that were."""


class Ours:
    """The Task, as a rank runs it."""

    def __init__(self, task: ImageClassification) -> None:
        self.task = task

    def train(self, epoch: int) -> int:
        self.task.context.start_epoch(epoch)
        self.task.train_epoch()
        return len(self.task.examples)


class PlainLoop:
    """What one writes by hand, on a copy of ``task``'s network and on its stored images."""

    def __init__(self, task: ImageClassification, epochs: int) -> None:
        config, data = task.config, task.data.train
        self.config = config
        self.model = copy.deepcopy(task.model)
        self.stored = data.pixels.images  # type: ignore[attr-defined]
        self.rows, self.targets = torch.from_numpy(data.rows), data.targets
        mean, std = (torch.tensor(values) for values in normalisation(config.backbone))
        self.mean, self.std = mean[:, None, None], std[:, None, None]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        steps = epochs * -(-len(self.rows) // config.batch_size)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    def train(self, epoch: int) -> int:
        torch.manual_seed(epoch)
        self.model.train()
        loss_sum = correct = 0.0
        order = torch.randperm(len(self.rows))
        for start in range(0, len(order), self.config.batch_size):
            chosen = order[start : start + self.config.batch_size]
            targets = self.targets[chosen]
            logits = self.model(self.augmented(self.rows[chosen]))
            loss = functional.cross_entropy(logits, targets)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.schedule.step()
            loss_sum += loss.item() * len(chosen)
            correct += (logits.argmax(1) == targets).sum().item()
        return len(self.rows)

    def augmented(self, rows: Tensor) -> Tensor:
        """Random crops and flips of stored images, as (n, 3, S, S) normalised floats."""
        images = torch.from_numpy(self.stored[rows.numpy()]).permute(0, 3, 1, 2) / 255
        size = self.config.image_size
        places = torch.randint(images.shape[2] - size + 1, (len(images), 2)).tolist()
        cut = [
            image[:, top : top + size, left : left + size]
            for image, (top, left) in zip(images, places, strict=True)
        ]
        flipped = torch.rand(len(images)) < self.config.horizontal_flip
        cut = [image.flip(2) if flip else image for image, flip in zip(cut, flipped, strict=True)]
        batch = (torch.stack(cut) - self.mean) / self.std
        return batch.contiguous(memory_format=torch.channels_last)


def make_sides(epochs: int, cache_dir: Path, threads: int) -> dict[str, Side]:
    """The sides by name; the plain loop, which the others are compared with, comes first."""
    epochs += WARM_UP
    context = Context(max_epochs=epochs, cache_dir=cache_dir, threads=threads)
    task = ImageClassification(Settings.model_validate(SETTINGS), context)
    return {PLAIN: PlainLoop(task, epochs), OURS: Ours(task)}


def measure(sides: dict[str, Side], epochs: int) -> dict[str, list[float]]:
    """Side -> images a second in each of its epochs."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in range(WARM_UP + epochs):
        for name in in_turn(list(sides), epoch):
            begin = time.perf_counter()
            images = sides[name].train(epoch)
            rates[name].append(images / (time.perf_counter() - begin))
    return {name: found[WARM_UP:] for name, found in rates.items()}


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """``names``, beginning with another in every round."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def summarise(rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each side its median, its range, and the median as a share of the plain loop's."""
    plain = median(rates[PLAIN])
    return {
        name: {
            "images_per_second": round(median(found), 2),
            "least": round(min(found), 2),
            "most": round(max(found), 2),
            "share": round(median(found) / plain, 3),
        }
        for name, found in rates.items()
    }


def show(summary: dict[str, dict[str, float]], epochs: int, threads: int, console: Console) -> None:
    """The table, the machine, and whether the target is met."""
    size = SETTINGS["image_size"]
    table = Table(title=f"training, efficientnet_lite0 at {size} px, {epochs} epochs each")
    for heading in ("", "images a second", "least", "most", f"÷ {PLAIN}"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in summary.items():
        rates = (row["images_per_second"], row["least"], row["most"])
        table.add_row(name, *(f"{rate:.1f}" for rate in rates), f"{row['share']:.3f}")
    console.print(table)
    machine = {**describe_machine(), "threads": threads}
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
    verdict = "met" if summary[OURS]["share"] >= LEAST_SHARE else "NOT met"
    console.print(f"target, at least {LEAST_SHARE:g} of the {PLAIN}'s: {verdict}")


def main() -> None:
    """Measure the sides and show them."""
    parser = make_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=15, help="that count, of each side (15)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1, as a rank has)")
    parser.add_argument("--parallel", action="store_true", help="compare the ways of ranks")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console(highlight=False)
    machine = {**describe_machine(), "threads": given.threads}
    record: dict[str, Any] = {"machine": machine, "settings": SETTINGS}
    if given.parallel:
        record["ways"] = parallel_ways.measure(SETTINGS, given.epochs, given.threads)
        parallel_ways.show(record["ways"], given.threads, console)
    else:
        record |= _compare(given.epochs, given.threads, console)
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")


def _compare(epochs: int, threads: int, console: Console) -> dict[str, Any]:
    """Ours beside the plain loop: shown, and as a record."""
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(make_sides(epochs, Path(folder), threads), epochs)
    summary = summarise(rates)
    show(summary, epochs, threads, console)
    return {"summary": summary, "rates": rates}


if __name__ == "__main__":
    main()
