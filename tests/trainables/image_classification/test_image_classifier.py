import json
from pathlib import Path

import pytest
import torch
from digit_files import write_digits
from PIL import Image
from safetensors.torch import load_file, save_file

from trainables.image_classification import ImageClassification, ImageClassifier, backbones
from trainables.image_classification.config import Settings
from trainables.task import Context

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A task of two classes, trained for an epoch on a frozen backbone, and its export."""
    home = tmp_path_factory.mktemp("trained")
    settings = Settings(
        data=str(write_digits(home / "digits", count=20)),
        image_size=32,
        freeze="all",
        learning_rate=0.01,
        batch_size=8,
    )
    task = ImageClassification(settings, Context(cache_dir=home / "cache"))
    task.train_epoch()
    (home / "best").mkdir()
    ImageClassification.export(settings, task.state_dict(), home / "best")
    return task, home


def test_the_whole_model_is_exported_with_what_it_takes_to_feed_it(
    trained: tuple[ImageClassification, Path],
):
    task, home = trained

    tensors = load_file(home / "best" / "model.safetensors")

    whole = task.model.state_dict()
    assert tensors.keys() == whole.keys() > task.state_dict()["model"].keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors.items())
    assert json.loads((home / "best" / "labels.json").read_text()) == ["0", "1"]
    assert json.loads((home / "best" / "model.json").read_text()) == {
        "backbone": "efficientnet_lite0",
        "image_size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }


def test_a_loaded_model_answers_as_the_trained_one(trained: tuple[ImageClassification, Path]):
    task, home = trained
    images = torch.rand(3, 3, 32, 32)

    model = ImageClassification.load(home / "best")

    assert isinstance(model, ImageClassifier)
    assert (model.training, model.labels, model.image_size) == (False, ["0", "1"], 32)
    task.model.eval()
    torch.testing.assert_close(model(images), task.model(images))


def test_prediction_sees_an_image_as_evaluation_does(trained: tuple[ImageClassification, Path]):
    task, home = trained
    path = home / "digits" / "1" / "3.png"
    row = next(i for i, name in enumerate(names(home)) if name == path)
    stored = torch.tensor(task.data.train._images[row]).permute(2, 0, 1)

    model = ImageClassification.load(home / "best")

    assert torch.equal(model.preprocess(Image.open(path)), task.prepare(stored))


def names(home: Path):
    return [
        home / "digits" / label / f"{i}.png" for label in "01" for i in sorted(range(20), key=str)
    ]


def test_files_are_predicted_with_their_labels(trained: tuple[ImageClassification, Path]):
    _, home = trained
    paths = names(home)

    predictions = ImageClassification.load(home / "best").predict(paths, batch_size=7)

    assert [prediction.path for prediction in predictions] == paths
    assert all(0.5 <= prediction.probability <= 1 for prediction in predictions)
    right = sum(prediction.label == prediction.path.parent.name for prediction in predictions)
    assert right >= 36


def test_loading_needs_no_pretrained_weights(
    trained: tuple[ImageClassification, Path], monkeypatch: pytest.MonkeyPatch
):
    _, home = trained
    monkeypatch.setattr(backbones, "_pretrained", None)

    ImageClassification.load(home / "best")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"text", "is no image: of no known"), (None, "cannot be read: No such")],
)
def test_a_file_that_is_no_image_is_refused_by_name(
    trained: tuple[ImageClassification, Path], tmp_path: Path, content: bytes | None, message: str
):
    _, home = trained
    path = tmp_path / "a.jpg"
    if content:
        path.write_bytes(content)

    with pytest.raises(ValueError, match=rf"a\.jpg {message}"):
        ImageClassification.load(home / "best").predict([path])


def test_a_folder_without_an_export_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no exported image classifier .*give the folder"):
        ImageClassification.load(tmp_path)


def test_weights_of_another_model_are_refused(
    trained: tuple[ImageClassification, Path], tmp_path: Path
):
    _, home = trained
    for name in ("model.json", "labels.json"):
        (tmp_path / name).write_text((home / "best" / name).read_text())
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "model.safetensors")

    with pytest.raises(ValueError, match="are of different models"):
        ImageClassification.load(tmp_path)
