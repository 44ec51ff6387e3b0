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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from trainables.event_log import EventLog
from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from trainables.optimization import schedule
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
        "cached_features",
        "val_loss",
        "val_accuracy",
        "val_macro_f1",
        "val_balanced_accuracy",
        "val_worst_recall",
        *(f"val_recall/{label}" for label in "012"),
    }
    assert metrics.pop("cached_features") == 0
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
        {"freeze": 3, "ema_decay": 0.9, "clip_norm": 1.0, "precision": "fp16"},
        {"head": "mlp", "head_dropout": 0.2, "mixup": 0.2, "cutmix": 1.0, "micro_batch": 5},
        {"freeze": "all", "unfreeze_every": 1, "auto_augment": "trivialaugment"},
        {"freeze": 4, "feature_views": 2, "rotation": 20, "class_weights": "balanced"},
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

    backbone, head = task.optimization._optimizer.param_groups
    assert backbone["lr"] == pytest.approx(0.1 * head["lr"])
    assert metrics["learning_rate"] == head["lr"] == 0.003 * schedule(2, 12, 0)


def test_only_what_is_trained_is_optimised(home: Path):
    task, _ = train(settings(home, freeze="all"), home, 0)

    (group,) = task.optimization._optimizer.param_groups
    assert group["params"] == list(task.model.head.parameters())


def test_a_loss_that_is_no_number_is_an_error(home: Path):
    config = settings(home, optimizer="sgd", learning_rate=1e30)

    with pytest.raises(
        FloatingPointError, match=r"training loss is (nan|inf) .*lower learning_rate"
    ):
        train(config, home, 2)


def test_a_single_image_left_over_does_not_stop_batchnorm(home: Path):
    task, _ = train(settings(home, batch_size=47), home, 1)  # of 48

    assert task.optimization.step == 1


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
    # what is due differs between the ranks, and what they count together does not
    log = EventLog(home / "log", skip=["images"]) if rank == 0 else None
    frozen, metrics = train(
        settings(home, freeze="all"), home, 2, rank=rank, world_size=2, event_log=log
    )
    frozen.context.close()
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
    events = EventAccumulator(str(home / "log"))
    events.Reload()
    assert events.Tags()["images"] == ["confusion_matrix", "projection_legend"]
    for label in "012":
        for event, told in zip(events.Tensors(f"pr/{label}"), first["metrics"], strict=True):
            found, _, _, missed, _, recall = make_ndarray(event.tensor_proto)
            assert found[0] == 4, "every image counts once, whichever rank had it"
            assert (missed[0], recall[0]) == (0, 1)
            right = 4 * told[f"val_recall/{label}"]
            assert found[64] <= right <= found[41], "at a half, and at a third, of the probability"
    (points,) = make_ndarray(events.Tensors("projection_1")[-1].tensor_proto)
    assert len(points) == 6, "those of the first rank"


def fixed(home: Path, **more: Any):
    """Settings under which a result is the same however a batch is cut: no BatchNorm learns."""
    return settings(home, **{"freeze": "all", "head": "mlp", **more})


@pytest.mark.parametrize("more", [{}, {"class_weights": "balanced"}, {"mixup": 0.4}])
def test_parts_of_a_batch_add_up_to_it(home: Path, more: dict[str, Any]):
    whole, expected = train(fixed(home, **more), home, 2)
    parts, history = train(fixed(home, **more, micro_batch=3), home, 2)

    assert (whole.micro_batch, parts.micro_batch) == (16, 3)
    for metrics, same in zip(history, expected, strict=True):
        assert metrics == pytest.approx(same, rel=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        {"freeze": "all"},
        {"freeze": 3},
        {"freeze": 4, "optimizer": "sgd", "ema_decay": 0.8},
        {"freeze": 3, "precision": "bf16"},
        {"freeze": "all", "unfreeze_every": 2},
    ],
)
def test_cached_features_give_the_same_metrics(home: Path, tmp_path: Path, more: dict[str, Any]):
    half = more.get("precision") == "bf16"
    _, expected = train(settings(home, **more, cache_features=False), home, 3)
    for _ in ("built", "found"):
        task, history = train(settings(home, **more), tmp_path, 3)
        for metrics, same in zip(history, expected, strict=True):
            near = pytest.approx(same, rel=2e-2 if half else 1e-4, abs=1e-6)
            assert {**metrics, "cached_features": 0} == near
            assert metrics["cached_features"] == 1
    assert task.inputs.network is not task.model
    assert len(list((tmp_path / "cache").glob("features-*/features.npy"))) >= 2


@pytest.mark.parametrize(
    ("more", "cached"),
    [
        ({"freeze": "all"}, True),
        ({"freeze": "all", "rotation": 10}, False),
        ({"freeze": "all", "rotation": 10, "feature_views": 2}, True),
        ({"freeze": "all", "mixup": 0.2}, False),
        ({"freeze": "all", "weights": "none"}, False),
        ({"freeze": "none", "feature_views": 2}, False),
        ({"freeze": "all", "cache_features": False}, False),
    ],
)
def test_features_are_cached_where_that_is_right(home: Path, more: dict[str, Any], cached: bool):
    task, _ = train(settings(home, **more), home, 0)

    assert (task.inputs.network is not task.model) == cached
    assert (task.inputs.train is not task.data.train) == cached


def test_features_without_room_are_computed_in_every_epoch(home: Path, tmp_path: Path):
    context = Context(cache_dir=tmp_path / "cache", cache_bytes=300_000)
    task = ImageClassification(settings(home, freeze=2), context)

    assert task.inputs.network is task.model
    assert not list((tmp_path / "cache").glob("features-*/*"))


def test_views_are_drawn_once_and_are_the_same_for_every_trial(home: Path, tmp_path: Path):
    config = settings(home, freeze="all", rotation=30, random_crop=True, feature_views=3)
    first, _ = train(config, tmp_path, 0, seed=1)
    second, _ = train(config, tmp_path, 0, seed=2)

    features = first.inputs.train._features
    assert features.shape[:2] == (3, len(first.data.train))
    assert second.inputs.train._features.filename == features.filename
    assert not (features[0] == features[1]).all(), "the views differ"
    epochs = [next(first.inputs.train.batches([range(8)]))[0] for _ in range(2)]
    assert not torch.equal(*epochs), "another view is drawn each time"


def test_gradual_unfreezing_trains_one_stage_more_each_time(home: Path):
    task, _ = train(settings(home, freeze=7, unfreeze_every=1), home, 0)
    frozen, kept = [], []
    for epoch in range(3):
        run(task, [epoch])
        frozen.append(task.frozen_stages)
        kept.append(len(task.state_dict()["model"]))

    assert frozen == [7, 6, 5]
    assert kept == sorted(set(kept))
    assert len(task.optimization._optimizer.param_groups) == 2


def test_the_average_is_what_is_evaluated_and_exported(home: Path, tmp_path: Path):
    config = settings(home, ema_decay=0.99, freeze="all", learning_rate=0.1)
    task, _ = train(config, home, 1)
    evaluated = task.evaluate()["val_loss"]
    state = task.state_dict()
    ImageClassification.export(config, state, tmp_path)
    exported = ImageClassification.load(tmp_path)

    assert state["ema"].keys() == state["model"].keys()
    torch.testing.assert_close(exported.model.head.weight.data, state["ema"]["head.weight"])
    assert not torch.equal(state["ema"]["head.weight"], state["model"]["head.weight"])
    task.optimization._average.clear()
    assert task.evaluate()["val_loss"] != evaluated


def test_balanced_weights_make_every_class_count_the_same(home: Path, tmp_path: Path):
    write_digits(tmp_path / "few", classes=[0, 1], count=30)
    for image in sorted((tmp_path / "few" / "1").iterdir())[10:]:
        image.unlink()
    config = settings(home, data=str(tmp_path / "few"), class_weights="balanced")
    task, _ = train(config, tmp_path, 0)

    targets = task.data.train.targets
    assert torch.bincount(targets).tolist() == [24, 8]
    assert task.class_weights.tolist() == pytest.approx([32 / 48, 32 / 16])
    assert task.class_weights[targets].mean() == pytest.approx(1)


def test_a_test_set_is_scored_apart(home: Path, tmp_path: Path):
    for half, count in (("train", 12), ("val", 5), ("test", 7)):
        write_digits(tmp_path / "data" / half, classes=[0, 1], count=count)
    task, _ = train(settings(home, data=str(tmp_path / "data"), freeze="all"), tmp_path, 1)

    assert (len(task.data.val), len(task.data.test)) == (10, 14)
    scored = task.test()
    assert {"loss", "accuracy", "macro_f1"} < scored.keys()
    assert scored["accuracy"] * 14 == pytest.approx(round(scored["accuracy"] * 14))
    without, _ = train(settings(home), home, 0)
    assert without.test() == {}


def test_a_final_fit_trains_on_validation_images_too(home: Path):
    task, _ = train(settings(home), home, 0, final=True)

    assert len(task.examples) == len(task.data.train) + len(task.data.val) == 60


def test_a_probe_leaves_no_trace(home: Path):
    """Neither in BatchNorm's statistics, nor in gradients, nor in what is drawn next."""
    config = settings(home, rotation=20, optimizer="sgd")
    _, expected = train(config, home, 2)
    context = Context(cache_dir=home / "cache", max_epochs=4, probes=True)
    task = ImageClassification(config, context)

    assert all(p.grad is None for p in task.model.parameters())
    assert run(task, range(2)) == expected
    assert context.used_micro_batch == 16


def test_compiled_it_trains_as_it_is(home: Path):
    _, expected = train(fixed(home), home, 1)
    _, history = train(fixed(home, compile=True), home, 1)

    assert history[0] == pytest.approx(expected[0], rel=1e-3)


def test_warm_up_takes_half_of_a_short_trial_at_most(home: Path):
    task, _ = train(settings(home, warmup_epochs=3), home, 0)  # of 4 epochs
    assert (task.optimization.warmup, task.optimization.total) == (6, 12)
