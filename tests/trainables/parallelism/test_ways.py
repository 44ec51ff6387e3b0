"""What each way refuses, and one process over many devices, with stand-ins for those."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from trainables.parallelism import arrange, data_parallel
from trainables.task import Context
from tuner.errors import UserError
from tuner.trainable import validate

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine

DIGITS = {
    "data": "digits", "max_images_per_class": 4, "image_size": 32, "random_crop": False,
    "backbone": "test_convnext", "weights": "none", "batch_size": 16, "learning_rate": 0.01,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "ranks", "message"),
    [
        ({"parallel": "fsdp"}, 1, "parallel is 'fsdp', which divides .* the trial has 1: give it"),
        ({"parallel": "pipeline"}, 1, "parallel is 'pipeline', which divides"),
        (
            {"parallel": "fsdp", "precision": "fp16"},
            2,
            "precision is 'fp16' and parallel is",
        ),
        ({"parallel": "pipeline", "precision": "fp16"}, 2, "they may overflow on one rank alone"),
        ({"parallel": "fsdp", "unfreeze_every": 1}, 2, "unfreeze_every is 1 .* divided .* once"),
        ({"parallel": "pipeline", "unfreeze_every": 1}, 2, "unfreeze_every is 1 and parallel is"),
        ({"parallel": "pipeline", "sync_batchnorm": True}, 2, "sync_batchnorm is True .* one rank"),
        ({"parallel": "fsdp", "batch_size": 15}, 2, "batch_size is 15, but the trial has 2 ranks"),
        ({"parallel": "pipeline", "batch_size": 2}, 3, "batch_size is 2 .* must be at least 3"),
        ({"parallel": "pipeline"}, 9, "'pipeline' on 9 ranks, but what is trained of the backbone"),
        ({"parallel": "data_parallel", "compile": True}, 1, "compile is True .* use ddp"),
        ({"parallel": "data_parallel", "sync_batchnorm": True}, 1, "sync_batchnorm is True"),
    ],
)
def test_what_does_not_go_together_is_refused(
    wrong: dict[str, Any], ranks: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ImageClassification.check(Settings(**DIGITS | wrong), world_size=ranks)


def test_what_goes_together_is_not() -> None:
    for more, ranks in [
        ({"parallel": "fsdp", "precision": "bf16"}, 2),
        ({"parallel": "pipeline", "batch_size": 15}, 2),
        ({"parallel": "data_parallel", "batch_size": 15}, 1),
    ]:
        ImageClassification.check(Settings(**DIGITS | more), world_size=ranks)


@pytest.fixture
def on_gpus(experiment: Callable[..., Any]) -> Callable[..., Any]:
    """Makes an experiment of trials with ``gpus``, in which ``parallel`` is as given."""

    def make(gpus: float, parallel: list[str]) -> Any:
        space = {"hyperparameters": {"parallel": {"type": "ordinal", "sequence": parallel}}}
        return experiment(
            trainable="image_classification", settings=DIGITS, search_space=space,
            search__metric="val_loss", resources={"gpus_per_trial": gpus, "cpus_per_worker": 3},
        )  # fmt: skip

    return make


def test_one_process_gets_all_gpus_of_a_trial(on_gpus: Callable[..., Any]) -> None:
    for parallel, bundles in [
        ("data_parallel", [{"CPU": 3, "GPU": 4}]),
        ("ddp", 4 * [{"CPU": 3, "GPU": 1}]),
    ]:
        given = on_gpus(4, [parallel])
        trainable, _ = validate(given)
        assert trainable.bundles(given.resources) == bundles


@pytest.mark.parametrize("gpus", [0, 0.5, 1])
def test_one_process_over_less_than_two_gpus_is_refused(
    gpus: float, on_gpus: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match=r"one process over two or more GPUs, but the trial has"):
        validate(on_gpus(gpus, ["data_parallel"]))


def test_a_space_that_changes_how_many_ranks_there_are_is_refused(
    on_gpus: Callable[..., Any],
) -> None:
    with pytest.raises(UserError, match=r"search_space: some configurations want one process"):
        validate(on_gpus(2, ["data_parallel", "ddp"]))
    validate(on_gpus(2, ["fsdp", "ddp"]))


class OverDevices(nn.Module):
    """As nn.DataParallel has it: a batch goes in parts through copies, one a device."""

    made: ClassVar[list["OverDevices"]] = []

    def __init__(self, module: nn.Module, device_ids: list[int]) -> None:
        super().__init__()
        self.module, self.device_ids, self.seen = module, device_ids, []
        OverDevices.made.append(self)

    def forward(self, inputs: Tensor) -> Tensor:
        parts = inputs.chunk(len(self.device_ids))
        self.seen.append([len(part) for part in parts])
        return torch.cat([self.module(part) for part in parts])


def test_one_process_over_three_devices_trains_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_parallel.nn, "DataParallel", OverDevices)

    def run(**place: Any) -> tuple[ImageClassification, list[dict[str, float]]]:
        config = Settings(**DIGITS, parallel="data_parallel")
        context = Context(cache_dir=tmp_path, max_epochs=2, **place)
        task, history = ImageClassification(config, context), []
        for epoch in range(2):
            context.start_epoch(epoch)
            history.append({**task.train_epoch(), **task.evaluate()})
            del history[-1]["images_per_second"]
        return task, history

    task, history = run(devices=3, probes=True)
    (wrapped,) = OverDevices.made
    _, alone = run()
    assert len(OverDevices.made) == 1, "with one device there is nothing to wrap"
    assert wrapped.device_ids == [0, 1, 2]
    assert wrapped.seen[0] == [6, 6, 4], "what fits is tried on all devices"
    assert len(wrapped.seen) == 1 + 2 * 3, "and evaluation is on the first alone"
    for metrics, expected in zip(history, alone, strict=True):
        assert metrics == pytest.approx(expected, rel=1e-4)
    assert list(task.state_dict()["model"]) == sorted(task.model.state_dict())


def test_one_process_is_not_had_by_several_ranks() -> None:
    """A space may draw it too rarely for ``validate`` to see."""
    with pytest.raises(ValueError, match=r"parallel is 'data_parallel', .* the trial has 2 ranks"):
        arrange("data_parallel", Context(world_size=2))
