import pytest
import torch
from sklearn import metrics as sklearn
from tensorboardX.summary import compute_curve
from torch.nn import functional

from trainables.metrics import (
    CLASSES_CONFUSED,
    CLASSES_NAMED,
    THRESHOLDS,
    Tally,
    macro_f1,
)
from trainables.task import Context


def count(classes: int, number: int = 200, skip: int | None = None):
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(classes, (number,), generator=generator)
    targets[targets == skip] = 0
    logits = torch.randn(number, classes, generator=generator)
    logits[torch.arange(number), targets] += 1.0
    counted = Tally(classes, torch.device("cpu"))
    for some, truth in zip(logits.split(64), targets.split(64), strict=True):
        counted.add(some, truth)
    counted.reduce(Context())
    return counted, logits, targets


def tally(classes: int, number: int = 200, skip: int | None = None):
    counted, logits, targets = count(classes, number, skip)
    return counted.metrics([f"c{i}" for i in range(classes)], "val_"), logits, targets


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
    found, _, _ = tally(CLASSES_NAMED + 1, number=2000)
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


def test_the_confusion_matrix_is_scikit_learns() -> None:
    counted, logits, targets = count(7)
    expected = sklearn.confusion_matrix(targets, logits.argmax(1))
    assert counted.confusion.tolist() == expected.tolist()


def test_of_very_many_classes_there_is_none_and_the_figures_are_the_same() -> None:
    found, logits, targets = tally(CLASSES_CONFUSED + 1, number=3000)
    counted, _, _ = count(CLASSES_CONFUSED + 1)
    assert counted.confusion is None
    f1 = sklearn.f1_score(targets, logits.argmax(1), average="macro")
    assert found["val_macro_f1"] == pytest.approx(f1)


def test_the_precision_recall_curves_are_those_of_all_probabilities() -> None:
    counted, logits, targets = count(4)
    probabilities = logits.softmax(1).numpy()
    curves = counted.pr_curves()
    assert curves.shape == (4, 6, THRESHOLDS)
    for i, curve in enumerate(curves):
        expected = compute_curve((targets == i).numpy(), probabilities[:, i], THRESHOLDS)
        assert curve == pytest.approx(expected)


def test_a_curve_of_a_known_case() -> None:
    counted = Tally(2, torch.device("cpu"))
    shares = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    counted.add(shares.log(), torch.tensor([0, 1, 0]))
    counted.reduce(Context())
    first = counted.pr_curves()[0]
    found, wrong = first[0], first[1]
    assert (found[0], wrong[0]) == (2, 1), "at threshold 0, everything is taken for it"
    at_half = round(0.5 * (THRESHOLDS - 1))
    assert (found[at_half], wrong[at_half]) == (1, 1)
    assert (first[4][at_half], first[5][at_half]) == (0.5, 0.5)
    assert first[0][-1] == 0


def test_logits_that_are_no_numbers_are_counted_and_give_a_loss_that_is_none() -> None:
    counted = Tally(3, torch.device("cpu"))
    counted.add(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))
    counted.reduce(Context())
    assert (
        counted.metrics(["a", "b", "c"], "")["loss"] != counted.metrics(["a", "b", "c"], "")["loss"]
    )
