"""What a classifier is judged by."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainables.task import Context

TOP = 5
CLASSES_NAMED = 20
"""With more classes than this, only the worst recall is reported, not every one; and there are no
precision-recall curves."""
CLASSES_CONFUSED = 100
"""With more, only the sums of the confusion matrix are counted, and its diagonal."""
THRESHOLDS = 127
"""Of a precision-recall curve; TensorBoard takes no more."""


class Tally:
    """Counts the predictions of one evaluation, on the device.

    Args:
        num_classes: logits a prediction has.
        device: where logits and targets are.

    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._classes = num_classes
        # a whole confusion matrix of 10,000 classes would take a GB
        shape = (num_classes,) * 2 if num_classes <= CLASSES_CONFUSED else (3, num_classes)
        self._counts = torch.zeros(shape, dtype=torch.int64, device=device)
        curves = num_classes if num_classes <= CLASSES_NAMED else 0
        self._binned = torch.zeros((2, curves, THRESHOLDS), dtype=torch.int64, device=device)
        """Probabilities of each class, of examples of others and of its own."""
        self._sums = torch.zeros(2, device=device)  # read once, at the end: a GPU need not wait

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count (N, classes) logits against (N,) classes."""
        logits, predicted = logits.float(), logits.argmax(1)
        if self._classes <= CLASSES_CONFUSED:
            self._counts += _count(targets * self._classes + predicted, self._counts.shape)
        else:
            right = targets[predicted == targets]
            rows = [_count(c, self._counts.shape[1:]) for c in (targets, predicted, right)]
            self._counts += torch.stack(rows)
        if self._binned.numel():
            classes = torch.arange(self._classes, device=targets.device)
            own = (targets[:, None] == classes) * self._classes
            bins = (logits.softmax(1).nan_to_num(0) * (THRESHOLDS - 1)).long()
            self._binned += _count((own + classes) * THRESHOLDS + bins, self._binned.shape)
        in_top = logits.topk(min(TOP, self._classes), dim=1).indices == targets[:, None]
        loss = functional.cross_entropy(logits, targets, reduction="sum")
        self._sums += torch.stack([loss, in_top.sum()])

    def reduce(self, context: Context) -> None:
        """Add up what all ranks have counted, once, after the last batch."""
        counted = torch.cat([self._counts.flatten(), self._binned.flatten()])
        counts, binned = context.sum(counted).cpu().tensor_split([self._counts.numel()])
        self._counts, self._binned = counts.view_as(self._counts), binned.view_as(self._binned)
        self._sums = context.sum(self._sums).cpu()

    def metrics(self, labels: list[str], prefix: str) -> dict[str, float]:
        """The figures.

        Args:
            labels: the classes' names, in the order of the logits.
            prefix: of the metrics' names, ``val_`` say.

        """
        if (counts := self.confusion) is not None:
            labelled, predicted, right = counts.sum(1), counts.sum(0), counts.diag()
        else:
            labelled, predicted, right = self._counts
        loss, in_top = self._sums.tolist()
        count = int(labelled.sum())
        recalls = right.double() / labelled  # NaN where a class has no examples
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

    @property
    def confusion(self) -> Tensor | None:
        """Counts (true, predicted); None where there are too many classes."""
        return self._counts if self._classes <= CLASSES_CONFUSED else None

    @property
    def has_pr_curves(self) -> bool:
        """Whether there are few enough classes for them."""
        return self._binned.numel() > 0

    def pr_curves(self) -> NDArray[np.float64]:
        """Of each class, against all others, (classes, 6, thresholds).

        True and false positives, true and false negatives, precision and recall, where a
        probability from each of even thresholds on, 0 to 1, counts as positive: as
        ``tensorboardX.summary.compute_curve`` has them of a list of probabilities.
        """
        others, own = self._binned.numpy()
        found, wrong = (np.cumsum(b[:, ::-1], axis=1)[:, ::-1].astype(float) for b in (own, others))
        missed, rejected = found[:, :1] - found, wrong[:, :1] - wrong
        precision = found / np.maximum(found + wrong, 1e-7)
        recall = found / np.maximum(found + missed, 1e-7)
        return np.stack([found, wrong, rejected, missed, precision, recall], axis=1)


def _count(indices: Tensor, shape: torch.Size) -> Tensor:
    """How often each index, row by row, into an array of ``shape`` occurs."""
    return torch.bincount(indices.flatten(), minlength=shape.numel()).view(shape)


def macro_f1(labelled: Tensor, predicted: Tensor, right: Tensor) -> float:
    """The mean F1 over the classes that occur, as a label or as a prediction.

    Of each class, (classes,): its examples, what was taken for it, and what was so rightly.
    """
    occurring = labelled + predicted
    scores = 2 * right / occurring
    return float(scores[occurring > 0].double().mean())
