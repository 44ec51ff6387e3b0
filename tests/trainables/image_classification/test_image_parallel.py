"""The ways to share the work on one network, on two real ranks: the same losses, the same files."""

import json
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

from trainables.checkpoint import load_state, save_state
from trainables.event_log import EventLog
from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings
from trainables.task import Context

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine

pytestmark = pytest.mark.slow

EPOCHS = 2
WAYS = ("ddp", "fsdp", "pipeline")
NEXT = {"ddp": "fsdp", "fsdp": "pipeline", "pipeline": "ddp"}
"""Which way goes on with the checkpoint of which."""
NEAR = 1e-4
"""Relative; sums in another order, over all epochs."""
VAL = 15


def settings(home: Path, **more: Any) -> Settings:
    """A network with LayerNorm, so that a result is the same however a batch is cut."""
    values = {
        "data": str(home / "digits"),
        "backbone": "test_convnext",
        "weights": str(home / "weights.pth"),
        "image_size": 32,
        "batch_size": 14,
        "micro_batch": 4,
        "optimizer": "sgd",
        "learning_rate": 0.02,
        "random_crop": False,
        "freeze": 1,
        "clip_norm": 0.3,
        "ema_decay": 0.8,
    }
    return Settings(**values | more)


def run(task: ImageClassification, epochs: range) -> list[dict[str, float]]:
    history = []
    for epoch in epochs:
        task.context.start_epoch(epoch)
        history.append({**task.train_epoch(), **task.evaluate()})
        rate = history[-1].pop("images_per_second")
        assert rate > 0 or task.context.rank, "rank 0 reports"
    return history


def bytes_held(task: ImageClassification) -> int:
    """Of what is trained, on this rank: weights, and the optimizer's state."""
    state = task.optimization._optimizer.state
    held = [*task.optimization.parameters.values()]
    held += [value for own in state.values() for value in own.values() if value.ndim]
    return sum(getattr(t, "to_local", lambda t=t: t)().nbytes for t in held)


def rank_main(rank: int, home: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{home / 'rendezvous'}", rank=rank, world_size=2
    )
    place = {"rank": rank, "world_size": 2, "cache_dir": home / "cache", "max_epochs": EPOCHS}
    found: dict[str, Any] = {}
    for way in WAYS:
        log = EventLog(home / way / "log") if rank == 0 else None
        context = Context(**place, event_log=log)
        task = ImageClassification(settings(home, parallel=way), context)
        history = run(task, range(1))
        state = task.state_dict()
        if rank == 0:
            save_state(state, home / way / "first")
        history += run(task, range(1, EPOCHS))
        state = task.state_dict()
        if rank == 0:
            save_state(state, home / way / "last")
        context.close()
        found[way] = {"history": history, "bytes": bytes_held(task), "names": list(state)}
    for way, following in NEXT.items():
        context = Context(**place, epoch=1)
        task = ImageClassification(settings(home, parallel=following), context)
        dist.barrier()
        task.load_state_dict(load_state(home / way / "first"))
        found[following]["resumed"] = run(task, range(1, EPOCHS))
    # dropout, mixing, views and classes that count differently
    more = {"mixup": 0.4, "head_dropout": 0.2, "freeze": "none", "class_weights": "balanced"}
    task = ImageClassification(settings(home, parallel="pipeline", **more), Context(**place))
    found["mixed"] = run(task, range(1))
    (home / f"rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks found and left: ``rank0.json``, and a folder for each way."""
    home = tmp_path_factory.mktemp("home")
    write_digits(home / "digits", classes=[0, 1, 2], count=23)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_convnext").state_dict(), home / "weights.pth")
    mp.spawn(rank_main, (home,), nprocs=2)
    return home


@pytest.fixture(scope="module")
def told(home: Path) -> list[dict[str, Any]]:
    return [json.loads((home / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(home: Path) -> list[dict[str, float]]:
    """What one rank finds by itself."""
    context = Context(cache_dir=home / "cache", max_epochs=EPOCHS)
    return run(ImageClassification(settings(home), context), range(EPOCHS))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_finds_what_one_rank_finds(
    way: str, told: list[dict[str, Any]], alone: list[dict[str, float]]
) -> None:
    for metrics, expected in zip(told[0][way]["history"], alone, strict=True):
        assert metrics == pytest.approx(expected, rel=NEAR)
    assert alone[-1]["train_loss"] < 0.9 * alone[0]["train_loss"], "there is something to find"


@pytest.mark.parametrize("way", WAYS)
def test_every_way_goes_on_with_anothers_checkpoint(
    way: str, told: list[dict[str, Any]], alone: list[dict[str, float]]
) -> None:
    for metrics, expected in zip(told[0][way]["resumed"], alone[1:], strict=True):
        assert metrics == pytest.approx(expected, rel=NEAR)


def test_checkpoints_are_the_same_files(home: Path) -> None:
    states = [load_state(home / way / "last") for way in WAYS]

    def names(state: Any, path: str = "") -> dict[str, Any]:
        if not isinstance(state, dict):
            return {path: tuple(state.shape) if isinstance(state, torch.Tensor) else state}
        return {k: v for key, s in state.items() for k, v in names(s, f"{path}/{key}").items()}

    assert names(states[0]) == names(states[1]) == names(states[2])
    for state in states[1:]:
        for kind in ("model", "ema"):
            torch.testing.assert_close(state[kind], states[0][kind], rtol=1e-3, atol=1e-4)


def test_the_best_model_loads_and_predicts_whatever_the_way(home: Path) -> None:
    images = sorted((home / "digits").rglob("*.png"))[:6]
    predictions = []
    for way in WAYS:
        best = home / way / "best"
        best.mkdir()
        ImageClassification.export(
            settings(home, parallel=way), load_state(home / way / "last"), best
        )
        predictions.append(ImageClassification.load(best).predict(images))
    for prediction in predictions[1:]:
        for found, expected in zip(prediction, predictions[0], strict=True):
            assert found.label == expected.label
            assert found.probability == pytest.approx(expected.probability, rel=1e-3)


def test_a_divided_network_takes_less_of_each_rank(told: list[dict[str, Any]]) -> None:
    held = {way: [rank[way]["bytes"] for rank in told] for way in WAYS}
    whole = held["ddp"][0]
    assert held["ddp"] == [whole, whole]
    for way in ("fsdp", "pipeline"):
        assert sum(held[way]) == whole, "nothing twice, nothing missing"
    assert max(held["fsdp"]) < 0.6 * whole


def test_rank_0_reports_and_saves(told: list[dict[str, Any]]) -> None:
    first, second = told
    assert first["ddp"]["history"] == second["ddp"]["history"]
    assert second["fsdp"]["names"] == second["pipeline"]["names"] == []
    assert first["mixed"][0]["val_loss"] == second["mixed"][0]["val_loss"], "all ranks count"


@pytest.mark.parametrize("way", WAYS)
def test_tensorboard_is_shown_each_way(way: str, home: Path) -> None:
    events = EventAccumulator(str(home / way / "log"))
    events.Reload()
    assert events.Graph().node
    assert "predictions" in events.Tags()["images"]
    points = make_ndarray(events.Tensors("projection_1")[-1].tensor_proto)
    mine = VAL if way == "pipeline" else (VAL + 1) // 2
    assert points.shape[1] == mine
    shown = {tag for tag in events.Tags()["histograms"] if tag.startswith("gradients/")}
    assert "gradients/head.weight" in shown
