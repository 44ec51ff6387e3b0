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
        # a whole confusion matrix of 10,000 classes would take a GB
        self._counts = torch.zeros(3, num_classes, dtype=torch.int64, device=device)
        self._sums = torch.zeros(2, device=device)  # read once, at the end: a GPU need not wait

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count (N, classes) logits against (N,) classes."""
        predicted = logits.argmax(1)
        right = targets[predicted == targets]
        counted = [
            torch.bincount(classes, minlength=self._classes)
            for classes in (targets, predicted, right)
        ]
        self._counts += torch.stack(counted)
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
        labelled, predicted, right = context.sum(self._counts).cpu()
        loss, in_top = context.sum(self._sums).tolist()
        count = int(labelled.sum())
        recalls = right.double() / labelled  # NaN where a class has no images
        occurring = recalls[~recalls.isnan()]
        found: dict[str, Any] = {
            "loss": loss / count,
            "accuracy": right.sum().item() / count,
            "macro_f1": macro_f1(labelled, predicted, right),
            "balanced_accuracy": occurring.mean().item(),
            "worst_recall": occurring.min().item(),
        }
        if self._classes > TOP:
            found["top5_accuracy"] = in_top / count
        if self._classes <= CLASSES_NAMED:
            pairs = zip(labels, recalls.tolist(), strict=True)
            found |= {f"recall/{label}": value for label, value in pairs if not math.isnan(value)}
        return {prefix + name: value for name, value in found.items()}


def macro_f1(labelled: Tensor, predicted: Tensor, right: Tensor) -> float:
    """The mean F1 over the classes that occur, as a label or as a prediction.

    Of each class, (classes,): its images, what was taken for it, and what was so rightly.
    """
    occurring = labelled + predicted
    scores = 2 * right / occurring
    return float(scores[occurring > 0].double().mean())
