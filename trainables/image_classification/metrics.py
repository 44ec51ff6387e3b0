"""What a classifier is judged by."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainables.task import Context

TOP = 5
CLASSES_NAMED = 20
"""With more classes than this, only the worst recall is reported, not every one."""


class Tally:
    """Counts the predictions of one evaluation, on the device.

    Args:
        num_classes: logits a prediction has.
        device: where logits and targets are.

    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._classes = num_classes
        self._confusion = torch.zeros(num_classes**2, dtype=torch.int64, device=device)
        self._sums = torch.zeros(2, device=device)  # read once, at the end: a GPU need not wait

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count (N, classes) logits against (N,) classes."""
        predicted = logits.argmax(1)
        self._confusion += torch.bincount(
            targets * self._classes + predicted, minlength=self._classes**2
        )
        in_top = logits.topk(min(TOP, self._classes), dim=1).indices == targets[:, None]
        loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
        self._sums += torch.stack([loss, in_top.sum()])

    def metrics(self, context: Context, labels: list[str], prefix: str) -> dict[str, float]:
        """The figures over all ranks; every rank gets them.

        Args:
            context: of the rank.
            labels: the classes' names, in the order of the logits.
            prefix: of the metrics' names, ``val_`` say.

        """
        confusion = context.sum(self._confusion).view(self._classes, self._classes).cpu()
        loss, in_top = context.sum(self._sums).tolist()
        count = int(confusion.sum())
        recalls = recall(confusion)
        occurring = recalls[~recalls.isnan()]
        found: dict[str, Any] = {
            "loss": loss / count,
            "accuracy": confusion.trace().item() / count,
            "macro_f1": macro_f1(confusion),
            "balanced_accuracy": occurring.mean().item(),
            "worst_recall": occurring.min().item(),
        }
        if self._classes > TOP:
            found["top5_accuracy"] = in_top / count
        if self._classes <= CLASSES_NAMED:
            pairs = zip(labels, recalls.tolist(), strict=True)
            found |= {f"recall/{label}": value for label, value in pairs if not math.isnan(value)}
        return {prefix + name: value for name, value in found.items()}


def recall(confusion: Tensor) -> Tensor:
    """Of each class's images, the share that was found, (classes,); NaN where it has none.

    ``confusion`` is (classes, classes): rows are labels, columns predictions.
    """
    return confusion.diagonal().double() / confusion.sum(1)


def macro_f1(confusion: Tensor) -> float:
    """The mean F1 over the classes that occur, as a label or as a prediction.

    ``confusion`` is as for :func:`recall`.
    """
    occurring = confusion.sum(0) + confusion.sum(1)
    scores = 2 * confusion.diagonal() / occurring
    return float(scores[occurring > 0].double().mean())
