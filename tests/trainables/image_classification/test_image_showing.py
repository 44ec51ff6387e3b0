"""What a Task shows in TensorBoard, read back from the event files."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from digit_files import write_digits
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.mesh import plugin_data_pb2
from tensorboard.util import tensor_util
from tensorboardX.summary import compute_curve
from torch import nn

from trainables import showing
from trainables.drawing import class_colors
from trainables.event_log import EventLog
from trainables.image_classification import ImageClassification, pictures
from trainables.image_classification.config import Settings
from trainables.showing import Predictions, Watch, project
from trainables.task import Context

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine

LABELS = ["0", "1", "2"]
EVERYTHING = {"images": 0, "histograms": 0, "tensors": 0, "scalars": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_digits(home / "digits", classes=[0, 1, 2], count=20)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), home / "weights.pth")
    return home


def make(home: Path, log: EventLog | None, **more: Any) -> ImageClassification:
    values = {
        "data": str(home / "digits"),
        "backbone": "test_efficientnet",
        "weights": str(home / "weights.pth"),
        "image_size": 32,
        "batch_size": 16,
        "learning_rate": 0.003,
        "random_crop": False,
        "freeze": 4,
        "ema_decay": 0.9,
        "precision": "bf16",
    }
    context = Context(cache_dir=home / "cache", max_epochs=4, event_log=log)
    return ImageClassification(Settings(**values | more), context)


def run(task: ImageClassification, epochs: int) -> list[dict[str, float]]:
    history = []
    for epoch in range(epochs):
        task.context.start_epoch(epoch)
        history.append({**task.train_epoch(), **task.evaluate()})
        del history[-1]["images_per_second"]
    return history


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), EVERYTHING)
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def task(home: Path) -> ImageClassification:
    """Two epochs of half precision on cached features, averaged; all of it logged."""
    task = make(home, EventLog(home / "log"))
    task.history = run(task, 2)  # type: ignore[attr-defined]
    task.context.close()
    task.log = home / "log"  # type: ignore[attr-defined]
    return task


@pytest.fixture(scope="module")
def events(task: ImageClassification) -> EventAccumulator:
    return read(task.log)  # type: ignore[attr-defined]


def judged(task: ImageClassification) -> tuple[torch.Tensor, torch.Tensor]:
    """The probabilities of all validation images, and their classes, computed plainly."""
    val = task.inputs.val
    ((inputs, targets),) = val.batches([list(range(len(val)))])
    with torch.inference_mode(), task.optimization.averaged(), task.optimization.autocast():
        logits = task.inputs.network(task.inputs.prepare(inputs))
    return logits.float().softmax(1), targets


def test_logging_changes_no_metric(home: Path, task: ImageClassification) -> None:
    assert run(make(home, None), 2) == task.history  # type: ignore[attr-defined]


def test_every_kind_is_there_in_every_epoch(events: EventAccumulator) -> None:
    tags = events.Tags()
    assert set(tags["images"]) == {"predictions", "confusion_matrix", "projection_legend"}
    assert set(tags["tensors"]) == {*(f"pr/{i}" for i in LABELS), "projection_1", "projection_3"}
    assert tags["graph"]
    for tag in tags["images"]:
        assert [event.step for event in events.Images(tag)] == [1, 2]
    for tag in tags["tensors"]:
        assert [event.step for event in events.Tensors(tag)] == [1, 2]
    for tag in tags["histograms"]:
        assert [event.step for event in events.Histograms(tag)] == [1, 2]


def test_histograms_are_of_the_trained_weights_and_of_the_last_gradients(
    events: EventAccumulator, task: ImageClassification
) -> None:
    trained = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
    assert "head.weight" in trained
    assert len(trained) < len(list(task.model.parameters()))
    expected = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in trained}
    assert set(events.Tags()["histograms"]) == expected
    for kind, tensor in (
        ("weights", task.model.head.weight),
        ("gradients", task.model.head.weight.grad),
    ):
        last = events.Histograms(f"{kind}/head.weight")[-1].histogram_value
        values = tensor.detach().flatten()[:: -(-tensor.numel() // showing.VALUES)]
        assert (last.min, last.max) == pytest.approx((float(values.min()), float(values.max())))
        assert last.num == sum(last.bucket) == len(values)


def test_precision_and_recall_are_of_the_whole_validation_set(
    events: EventAccumulator, task: ImageClassification
) -> None:
    probabilities, targets = judged(task)
    for i, label in enumerate(LABELS):
        logged = tensor_util.make_ndarray(events.Tensors(f"pr/{label}")[-1].tensor_proto)
        expected = compute_curve((targets == i).numpy(), probabilities[:, i].numpy(), 127)
        assert logged == pytest.approx(expected)
        assert logged[0][0] + logged[3][0] == 4


def test_the_cloud_has_a_point_of_its_classs_color_for_every_image(
    events: EventAccumulator, task: ImageClassification
) -> None:
    points, colors = (
        tensor_util.make_ndarray(events.Tensors(f"projection_{kind}")[-1].tensor_proto)
        for kind in (1, 3)
    )
    _, targets = judged(task)
    assert points.shape == colors.shape == (1, 12, 3)
    assert np.abs(points).max() == pytest.approx(1)
    palette = np.array(class_colors(3))
    assert colors[0].tolist() == palette[targets].tolist()
    plugin = events.SummaryMetadata("projection_1").plugin_data.content
    assert plugin_data_pb2.MeshPluginData.FromString(plugin).content_type == 1


def test_the_graph_is_of_the_whole_network(events: EventAccumulator) -> None:
    names = [node.name for node in events.Graph().node]
    assert len(names) > 50
    assert any("EfficientNet[features]/Conv2d[conv_stem]" in name for name in names)
    assert any("Head[head]" in name for name in names)


@pytest.mark.parametrize("kind", ImageClassification.logs)
def test_each_kind_can_be_left_out(kind: str, task: ImageClassification, tmp_path: Path) -> None:
    tags = {
        "histograms": "histograms",
        "images": "predictions",
        "confusion_matrix": "confusion_matrix",
        "pr_curves": "pr/0",
        "projection": "projection_1",
        "graph": "graph",
    }
    task.context.event_log = EventLog(tmp_path, skip=[kind])
    task.graph_shown = False
    task.context.log("histograms", task._show_histograms)
    task.evaluate()
    task.context.close()
    found = read(tmp_path).Tags()
    seen = {*found["images"], *found["tensors"]}
    seen |= {name for name in ("histograms", "graph") if found[name]}
    assert set(tags.values()) - seen == {tags[kind]}


def test_where_nothing_is_due_nothing_is_kept(task: ImageClassification, tmp_path: Path) -> None:
    task.context.event_log = EventLog(tmp_path / "none", max_share=0)
    expected, add = task.evaluate(), task.watch.add
    task.watch.add = pytest.fail  # type: ignore[method-assign]
    assert task.evaluate() == expected
    task.watch.add = add  # type: ignore[method-assign]
    assert not (tmp_path / "none").exists()


def test_a_graph_that_cannot_be_traced_costs_the_trial_nothing(
    task: ImageClassification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> bytes:
        raise torch.OutOfMemoryError("no room for the trace")

    monkeypatch.setattr(showing, "_graphs", {})
    monkeypatch.setattr(showing, "trace", fail)
    task.context.event_log, task.graph_shown = EventLog(tmp_path), False
    assert "val_accuracy" in task.evaluate()
    task.evaluate()
    task.context.close()
    assert caplog.text.count("graph could not be logged") == 1
    assert "predictions" in read(tmp_path).Tags()["images"]
    task.context.event_log, task.graph_shown = EventLog(tmp_path / "next"), False
    task.evaluate()
    task.context.close()
    assert caplog.text.count("graph could not be logged") == 1, "it is not tried again"


def with_batchnorm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())


def test_a_trace_leaves_the_network_and_the_generators_as_they_were() -> None:
    model = with_batchnorm().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    showing.trace(model, torch.randn(1, 3, 8, 8, generator=torch.Generator()))

    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert np.random.get_state()[1].tolist() == drawn[2]  # noqa: NPY002


def test_a_network_is_traced_once_and_few_are_traced_in_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced: list[nn.Module] = []
    written: list[bytes] = []

    def trace(model: nn.Module, _: torch.Tensor) -> bytes:
        traced.append(model)
        return b"graph"

    monkeypatch.setattr(showing, "_graphs", {})
    monkeypatch.setattr(showing, "trace", trace)
    writer = SimpleNamespace(file_writer=SimpleNamespace(add_event=written.append))
    model, example = nn.Identity(), torch.zeros(1)
    for key in (*range(20), 19, 7, 0):
        showing.write_graph(writer, model, example, (key,))
    assert len(traced) == showing._GRAPHS_KEPT == 8
    assert len(written) == 8 + 2, "each of the eight, and two of them again"


def test_mistakes_come_first_the_surest_before_all() -> None:
    predictions = Predictions(
        predicted=torch.tensor([0, 1, 2, 0, 1]),
        confidence=torch.tensor([0.9, 0.4, 0.8, 0.99, 0.5]),
        true=torch.tensor([1, 0, 2, 0, 1]),
    )
    chosen = predictions.most_telling(4)
    assert chosen.tolist() == [0, 1, 4, 2]
    assert predictions.at(chosen[:1]).true.tolist() == [1]


def test_the_picture_begins_with_a_mistake_where_there_is_one(
    task: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[torch.Tensor, list[str], list[str]]] = []

    def draw(images: torch.Tensor, predicted: list[str], true: list[str], _: object) -> Image.Image:
        drawn.append((images, predicted, true))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(pictures, "draw_predictions", draw)
    task.context.event_log = EventLog(tmp_path)
    with torch.no_grad():
        task.optimization._average["head.bias"][1] += 100  # all are taken for the second class
    task.evaluate()
    task.context.close()
    ((images, predicted, true),) = drawn
    assert predicted == ["1"] * 12
    assert true[:8].count("1") == 0
    assert true[8:] == ["1"] * 4
    position = task.data.val.targets.tolist().index(1)
    right = [i for i, label in enumerate(true) if label == "1"]
    own, _ = task.data.val.batch([position])
    assert any(torch.equal(images[i], own[0]) for i in right)


@pytest.mark.parametrize("batch", [3, 7, 20])
def test_features_are_kept_of_evenly_spread_images(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "POINTS", 6)
    head = nn.Identity()
    watch = Watch(head)
    features = torch.arange(20.0)[:, None]
    head(features)
    assert not watch.features
    watch.start(20)
    for some in features.split(batch):
        head(some)
    watch.stop()
    head(features)
    assert torch.cat(watch.features).flatten().tolist() == [0, 4, 8, 12, 16]
    assert watch.every == 4


def test_a_projection_keeps_the_distances_of_what_lies_in_three_dimensions() -> None:
    rng = np.random.default_rng(1)
    flat = rng.standard_normal((50, 3)) * [3, 2, 1]
    axes, _ = np.linalg.qr(rng.standard_normal((64, 3)))
    found = project((flat @ axes.T + 5).astype(np.float32))

    def distances(points: Any) -> Any:
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    ratio = distances(found)[0, 1] / distances(flat)[0, 1]
    assert distances(found) == pytest.approx(ratio * distances(flat), rel=1e-3, abs=1e-5)
    assert found.std(0)[0] > found.std(0)[1] > found.std(0)[2]


@pytest.mark.parametrize("shape", [(1, 5), (4, 2), (2, 100)])
def test_a_projection_of_little_has_three_coordinates_too(shape: tuple[int, int]) -> None:
    found = project(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    assert found.shape == (shape[0], 3)
    assert np.isfinite(found).all()


def test_what_overflowed_is_left_out_of_a_histogram() -> None:
    written: dict[str, list[float]] = {}

    def add_histogram(tag: str, values: Any, *_: object, **__: object) -> None:
        written[tag] = values.tolist()

    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.tensor([float("inf"), 3.0])
    unused = nn.Parameter(torch.tensor([4.0]))
    showing.write_histograms(
        SimpleNamespace(add_histogram=add_histogram), {"a": weight, "b": unused}, 1
    )
    assert written == {"weights/a": [1.0, 2.0], "weights/b": [4.0], "gradients/a": [3.0]}
