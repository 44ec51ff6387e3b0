import csv
import html
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from docstring_files import PACKAGES, write_docstrings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainables.event_log import EventLog
from trainables.task import Context
from trainables.text_classification import TextClassification
from trainables.text_classification.config import Settings

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 x 80 docstrings to train and validate on, and a folder with others to test on."""
    home = tmp_path_factory.mktemp("home")
    write_docstrings(home / "texts.csv")
    write_docstrings(home / "parts" / "train.csv", count=60)
    write_docstrings(home / "parts" / "val.csv", count=15, skip=60)
    write_docstrings(home / "parts" / "test.csv", count=5, skip=75)
    return home


def settings(home: Path, **more: Any) -> Settings:
    values = {
        "data": str(home / "texts.csv"),
        "vocabulary_size": 600,
        "max_tokens": 24,
        "embedding_dim": 16,
        "batch_size": 16,
        "learning_rate": 0.01,
        "validation_fraction": 0.25,
    }
    return Settings(**values | more)


SAME = {"dropout": 0.0, "optimizer": "sgd", "learning_rate": 0.2}
"""Under these, no rounding is amplified, and nothing is drawn."""
TRANSFORMER = {"network": "transformer", "layers": 1, "heads": 2}


def train(
    config: Settings, home: Path, epochs: int, **context: Any
) -> tuple[TextClassification, list[dict[str, float]]]:
    task = TextClassification(config, Context(cache_dir=home / "cache", max_epochs=4, **context))
    return task, run(task, range(epochs))


def run(task: TextClassification, epochs: Iterable[int]) -> list[dict[str, float]]:
    history = []
    for epoch in epochs:
        task.context.start_epoch(epoch)
        history.append({**task.train_epoch(), **task.evaluate()})
        del history[-1]["texts_per_second"]
    return history


def test_an_epoch_reports_its_metrics(home: Path) -> None:
    _, (metrics,) = train(settings(home), home, 1)

    assert metrics.keys() == {
        "train_loss", "train_accuracy", "learning_rate",
        "val_loss", "val_accuracy", "val_macro_f1", "val_balanced_accuracy", "val_worst_recall",
        *(f"val_recall/{label}" for label in PACKAGES),
    }  # fmt: skip
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("network", ["embedding_bag", "transformer"])
def test_it_learns_real_texts(home: Path, network: str) -> None:
    config = settings(home, network=network, heads=2, layers=1, learning_rate=0.03)

    _, history = train(config, home, 4)

    assert history[-1]["val_accuracy"] > 0.6, "a third are of each class"


@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": "sgd", "clip_norm": 1.0, "class_weights": "balanced"},
        {**TRANSFORMER, "ema_decay": 0.9, "label_smoothing": 0.1, "micro_batch": 5},
    ],
)
def test_a_resumed_task_goes_on_exactly(home: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    task, _ = train(settings(home, **more), home, 1)
    torch.save(task.state_dict(), tmp_path / "state.pt")
    expected = run(task, range(1, 3))

    resumed, _ = train(settings(home, **more), home, 0, epoch=1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))

    assert run(resumed, range(1, 3)) == expected


def test_a_state_of_another_vocabulary_or_network_is_refused(home: Path) -> None:
    task, _ = train(settings(home), home, 0)
    coarser, _ = train(settings(home, vocabulary_size=400), home, 0)
    other, _ = train(settings(home, **TRANSFORMER), home, 0)

    with pytest.raises(ValueError, match=r"whose vocabulary is not the checkpoint's: resume"):
        task.load_state_dict(coarser.state_dict())
    with pytest.raises(ValueError, match=r"network is 'embedding_bag', .*trained with others"):
        task.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"checkpoint's are \['cat'\]"):
        task.load_state_dict(task.state_dict() | {"labels": ["cat"]})


def test_trials_of_one_process_do_not_touch_each_other(home: Path) -> None:
    _, first = train(settings(home), home, 1)
    train(settings(home, learning_rate=0.1), home, 1)

    _, again = train(settings(home), home, 1)

    assert again == first


def rank_main(rank: int, home: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{home / 'rendezvous'}", rank=rank, world_size=2
    )
    found = {}
    for name, more in (("bag", {}), ("transformer", TRANSFORMER)):
        config = settings(home, **SAME, **more)
        task, metrics = train(config, home, 2, rank=rank, world_size=2)
        found[name] = {"metrics": metrics, "model": task.state_dict()["model"]}
    torch.save(found, home / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_train_and_judge_as_one(home: Path) -> None:
    mp.spawn(rank_main, (home,), nprocs=2)

    first, second = (torch.load(home / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, more in (("bag", {}), ("transformer", TRANSFORMER)):
        config = settings(home, **SAME, **more)
        _, alone = train(config, home, 2)
        _, parts = train(config.model_copy(update={"micro_batch": 5}), home, 2)
        assert first[name]["metrics"] == second[name]["metrics"]
        assert len(alone) == 2
        for together, single, cut in zip(first[name]["metrics"], alone, parts, strict=True):
            assert together == pytest.approx(single, rel=1e-4)
            assert cut == pytest.approx(single, rel=1e-4)
        torch.testing.assert_close(first[name]["model"], second[name]["model"], rtol=0, atol=0)


def test_the_final_fit_trains_on_validation_texts_too_with_the_same_vocabulary(home: Path) -> None:
    searched, _ = train(settings(home), home, 0)
    final, _ = train(settings(home), home, 0, final=True)

    assert (len(searched.inputs.train), len(final.inputs.train)) == (180, 240)
    assert final.data.vocabulary.dumps() == searched.data.vocabulary.dumps()


def test_texts_kept_for_the_end_are_scored_once(home: Path) -> None:
    config = settings(home, data=str(home / "parts"))
    task, _ = train(config, home, 2)

    assert TextClassification.has_test(config)
    assert not TextClassification.has_test(settings(home))
    assert not TextClassification.has_test(Settings())
    assert {"accuracy", "loss", "macro_f1"} <= task.test().keys()
    assert train(settings(home), home, 0)[0].test() == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"data": "nowhere"}, "data is 'nowhere', which is not there"),
        ({"batch_size": 15}, "batch_size is 15, but the trial has 2 ranks"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    home: Path, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextClassification.check(settings(home, **wrong), world_size=2)


def test_what_can_run_is_not_refused(home: Path) -> None:
    TextClassification.check(settings(home), world_size=2)
    TextClassification.check(Settings(), world_size=2)


def test_heads_must_divide_a_transformers_embedding() -> None:
    Settings(embedding_dim=30, heads=4)
    with pytest.raises(ValueError, match="embedding_dim is 30 and heads 4: a transformer's"):
        Settings(network="transformer", embedding_dim=30, heads=4)


def test_running_out_of_memory_is_tried_on_the_longest_texts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def forward(ids: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(ids.shape))
        if len(ids) > 4:
            raise torch.OutOfMemoryError("no room")
        return original(ids)

    task, _ = train(settings(home), home, 0)
    original = task.model.features.forward
    monkeypatch.setattr(task.model.features, "forward", forward)
    task.context.probes = True
    size = task.context.micro_batch(16, task._attempt, "a kind of its own")

    assert size == 4
    assert seen == [(16, 24), (8, 24), (4, 24)]


def test_tensorboard_shows_decoded_texts_mistakes_first(home: Path, tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    task, _ = train(settings(home), home, 1, event_log=log)
    task.context.close()

    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    (event,) = events.Tensors("texts/text_summary")
    rows = event.tensor_proto.string_val[0].decode().splitlines()
    with (home / "texts.csv").open(newline="") as file:
        texts = {row["text"]: row["label"] for row in csv.DictReader(file)}
    assert len(rows) == 24
    mistaken = ["taken for" in row.partition(": ")[0] for row in rows]
    assert mistaken == sorted(mistaken, reverse=True)
    assert any(mistaken)
    for row in rows:
        judged, _, shown = html.unescape(row).partition(": ")
        label = judged.split("**")[1]
        assert [texts[text] for text in texts if text.startswith(shown)] == [label], row
    assert events.Tags()["images"] == ["confusion_matrix", "projection_legend"]
    assert events.Tags()["graph"]
    assert {f"pr/{label}" for label in PACKAGES} <= set(events.Tags()["tensors"])
