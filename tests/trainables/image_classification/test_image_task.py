import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from digit_files import write_digits
from sklearn.metrics import f1_score

from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from trainables.image_classification.task import macro_f1, schedule
from trainables.task import Context

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory):
    """A folder of 3 x 20 digits, and weights of a tiny backbone to call pretrained."""
    home = tmp_path_factory.mktemp("home")
    write_digits(home / "digits", classes=[0, 1, 2], count=20)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), home / "weights.pth")
    return home


def settings(home: Path, **more: Any):
    values = {
        "data": str(home / "digits"),
        "backbone": "test_efficientnet",
        "weights": str(home / "weights.pth"),
        "image_size": 32,
        "batch_size": 16,
        "learning_rate": 0.003,
        "random_crop": False,
    }
    return Settings(**values | more)


def train(config: Settings, home: Path, epochs: int, **context: Any):
    task = ImageClassification(config, Context(cache_dir=home / "cache", max_epochs=4, **context))
    return task, run(task, range(epochs))


def run(task: ImageClassification, epochs: Iterable[int]):
    history = []
    for epoch in epochs:
        task.context.start_epoch(epoch)
        history.append({**task.train_epoch(), **task.evaluate()})
        del history[-1]["images_per_second"]
    return history


def test_an_epoch_reports_its_metrics(home: Path):
    _, (metrics,) = train(settings(home), home, 1)

    assert metrics.keys() == {
        "train_loss",
        "train_accuracy",
        "learning_rate",
        "val_loss",
        "val_accuracy",
        "val_macro_f1",
    }
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


def test_real_weights_learn_real_digits_from_few_images(home: Path):
    config = Settings(
        data="digits", max_images_per_class=40, image_size=32, freeze=5, learning_rate=0.003
    )

    _, history = train(config, home, 4)

    assert history[-1]["val_accuracy"] > 0.8


def as_stored(state: Any) -> Any:
    """The state as safetensors gives it back: without the tensors' layout in memory."""
    if isinstance(state, dict):
        return {key: as_stored(value) for key, value in state.items()}
    return state.contiguous() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize(
    "more",
    [
        {"freeze": "none", "optimizer": "adamw", "rotation": 10, "random_crop": True},
        {"freeze": 3, "optimizer": "sgd", "warmup_epochs": 1.5, "backbone_lr_scale": 0.1},
        {"freeze": "all", "optimizer": "sgd", "momentum": 0.0, "label_smoothing": 0.1},
        {"freeze": 2, "weights": "none"},
    ],
)
def test_a_resumed_task_goes_on_exactly(home: Path, tmp_path: Path, more: dict[str, Any]):
    task, _ = train(settings(home, **more), home, 1)
    torch.save(task.state_dict(), tmp_path / "state.pt")
    expected = run(task, range(1, 3))

    resumed, _ = train(settings(home, **more), home, 0, epoch=1)
    resumed.load_state_dict(as_stored(torch.load(tmp_path / "state.pt", weights_only=True)))

    assert run(resumed, range(1, 3)) == expected


def test_the_state_is_a_copy_and_holds_only_what_training_changed(home: Path):
    task, _ = train(settings(home, freeze=3), home, 1)
    before = task.state_dict()
    head = before["model"]["head.weight"].clone()

    run(task, [1])

    assert torch.equal(before["model"]["head.weight"], head)
    assert not any(name.startswith("features.conv_stem") for name in before["model"])
    assert before["step"] == 3
    assert before["labels"] == ["0", "1", "2"]


def test_a_state_of_other_classes_or_other_settings_is_refused(home: Path):
    task, _ = train(settings(home, freeze="all"), home, 0)
    other, _ = train(settings(home, freeze=3), home, 0)

    with pytest.raises(ValueError, match=r"freeze is 'all' and backbone 'test_efficientnet'"):
        task.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"checkpoint's are \['cat'\]"):
        task.load_state_dict(task.state_dict() | {"labels": ["cat"]})


def test_trials_of_one_process_do_not_touch_each_other(home: Path):
    _, first = train(settings(home), home, 1)
    train(settings(home, learning_rate=0.1), home, 1)

    _, again = train(settings(home), home, 1)

    assert again == first


def test_learning_rates_differ_between_backbone_and_head(home: Path):
    task, (metrics,) = train(settings(home, backbone_lr_scale=0.1), home, 1)

    backbone, head = task.optimizer.param_groups
    assert backbone["lr"] == pytest.approx(0.1 * head["lr"])
    assert metrics["learning_rate"] == head["lr"] == 0.003 * schedule(2, 12, 0)


def test_only_what_is_trained_is_optimised(home: Path):
    task, _ = train(settings(home, freeze="all"), home, 0)

    (group,) = task.optimizer.param_groups
    assert group["params"] == list(task.model.head.parameters())


def test_a_loss_that_is_no_number_is_an_error(home: Path):
    config = settings(home, optimizer="sgd", learning_rate=1e30)

    with pytest.raises(
        FloatingPointError, match=r"training loss is (nan|inf) .*lower learning_rate"
    ):
        train(config, home, 2)


def test_a_single_image_left_over_does_not_stop_batchnorm(home: Path):
    task, _ = train(settings(home, batch_size=47), home, 1)  # of 48

    assert (task.steps_per_epoch, task.step) == (1, 1)


def test_the_learning_rate_rises_then_falls():
    assert [schedule(step, 10, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1]
    assert schedule(4, 10, 4) == 1
    assert schedule(7, 10, 4) == pytest.approx(0.5)
    assert schedule(10, 10, 4) == schedule(99, 10, 4) == 0
    assert schedule(0, 10, 0) == 1


def test_macro_f1_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    labels, predictions = torch.randint(4, (2, 50), generator=generator)  # the fifth never occurs
    confusion = torch.bincount(labels * 5 + predictions, minlength=25).view(5, 5)

    assert macro_f1(confusion) == pytest.approx(f1_score(labels, predictions, average="macro"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": "test_efficientnett"}, "did you mean test_efficientnet"),
        ({"weights": "nowhere.pth"}, "weights is 'nowhere.pth', which is no file"),
        ({"data": "nowhere"}, "data is 'nowhere', but"),
        ({"batch_size": 15}, "batch_size is 15, but the trial has 2 ranks"),
        ({"freeze": 8}, "freeze is 8, but the backbone has 7 stages"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    home: Path, wrong: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        ImageClassification.check(settings(home, **wrong), world_size=2)


def test_what_can_run_is_not_refused(home: Path):
    ImageClassification.check(settings(home, freeze=7), world_size=2)
    ImageClassification.check(Settings(data="digits"), world_size=2)


def rank_main(rank: int, home: Path):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{home / 'rendezvous'}", rank=rank, world_size=2
    )
    frozen, metrics = train(settings(home, freeze="all"), home, 2, rank=rank, world_size=2)
    free, _ = train(settings(home, freeze=2), home, 1, rank=rank, world_size=2)
    states = [frozen.state_dict(), free.state_dict()]
    torch.save({"metrics": metrics, "states": states}, home / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_train_and_judge_as_one(home: Path):
    mp.spawn(rank_main, (home,), nprocs=2)

    first, second = (torch.load(home / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    _, alone = train(settings(home, freeze="all"), home, 2)
    assert first["metrics"] == second["metrics"]
    for together, single in zip(first["metrics"], alone, strict=True):
        assert together == pytest.approx(single, rel=1e-4)
    for ours, theirs in zip(first["states"], second["states"], strict=True):
        torch.testing.assert_close(ours["model"], theirs["model"], rtol=0, atol=0)
