import pytest
import torch
from sklearn import metrics as sklearn
from torch.nn import functional

from trainables.image_classification.metrics import CLASSES_NAMED, Tally, macro_f1
from trainables.task import Context


def tally(classes: int, count: int = 200, skip: int | None = None):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(classes, (count,), generator=generator)
    targets[targets == skip] = 0
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), targets] += 1.0
    counted = Tally(classes, torch.device("cpu"))
    for some, truth in zip(logits.split(64), targets.split(64), strict=True):
        counted.add(some, truth)
    labels = [f"c{i}" for i in range(classes)]
    return counted.metrics(Context(), labels, "val_"), logits, targets


def test_the_figures_are_scikit_learns() -> None:
    found, logits, targets = tally(7)
    predicted = logits.argmax(1)

    assert found["val_loss"] == pytest.approx(float(functional.cross_entropy(logits, targets)))
    assert found["val_accuracy"] == pytest.approx(sklearn.accuracy_score(targets, predicted))
    balanced = sklearn.balanced_accuracy_score(targets, predicted)
    assert found["val_balanced_accuracy"] == pytest.approx(balanced)
    f1 = sklearn.f1_score(targets, predicted, average="macro")
    assert found["val_macro_f1"] == pytest.approx(f1)
    top5 = sklearn.top_k_accuracy_score(targets, logits, k=5)
    assert found["val_top5_accuracy"] == pytest.approx(top5)
    recalls = sklearn.recall_score(targets, predicted, average=None)
    assert [found[f"val_recall/c{i}"] for i in range(7)] == pytest.approx(list(recalls))
    assert found["val_worst_recall"] == pytest.approx(min(recalls))


def test_top_5_of_few_classes_says_nothing_and_is_left_out() -> None:
    found, _, _ = tally(5)
    assert "val_top5_accuracy" not in found


def test_of_many_classes_only_the_worst_is_named() -> None:
    found, _, _ = tally(CLASSES_NAMED + 1, count=2000)
    assert not [name for name in found if "recall/" in name]
    assert 0 <= found["val_worst_recall"] <= found["val_balanced_accuracy"] <= 1


def test_a_class_without_images_has_no_recall_and_does_not_count() -> None:
    found, logits, targets = tally(4, skip=2)
    assert "val_recall/c2" not in found
    present = [i for i in range(4) if i != 2]
    recalls = sklearn.recall_score(targets, logits.argmax(1), labels=present, average=None)
    assert found["val_balanced_accuracy"] == pytest.approx(recalls.mean())


def test_a_class_that_never_occurs_has_no_part_in_f1() -> None:
    labelled, predicted, right = torch.tensor([[4, 2, 0], [3, 3, 0], [3, 2, 0]])
    assert macro_f1(labelled, predicted, right) == pytest.approx((6 / 7 + 4 / 5) / 2)
