import json
from pathlib import Path

import pytest
import torch
from digit_files import write_digits
from PIL import Image
from safetensors.torch import load_file, save_file

from trainables.image_classification import (
    ImageClassification,
    ImageClassifier,
    backbones,
    transforms,
)
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
        "head": "linear",
        "head_dropout": 0.0,
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


def random_state(**settings: object):
    """Settings, a random network of theirs, and its state as a task gives it."""
    config = Settings.model_validate(
        {"data": "digits", "backbone": "test_resnet", "weights": "none", "image_size": 32}
        | settings
    )
    model = backbones.build(
        config.backbone, 2, config.weights, head=config.head, head_dropout=config.head_dropout
    ).eval()
    state = {"labels": ["0", "1"], "model": model.state_dict()}
    return config, model, state


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("head_dropout", [0.0, 0.5])
def test_a_head_is_rebuilt_as_it_was(tmp_path: Path, head: str, head_dropout: float):
    config, model, state = random_state(head=head, head_dropout=head_dropout)
    images = torch.rand(3, 3, 32, 32)

    ImageClassification.export(config, state, tmp_path)
    loaded = ImageClassification.load(tmp_path)

    assert torch.equal(loaded(images), model(images))
    assert loaded.model.head.dropout.p == head_dropout
    assert (loaded.model.head.hidden is None) == (head == "linear")


def test_an_export_from_before_there_was_a_choice_of_head_loads(tmp_path: Path):
    config, model, state = random_state()
    images = torch.rand(3, 3, 32, 32)
    ImageClassification.export(config, state, tmp_path)
    made = json.loads((tmp_path / "model.json").read_text())
    older = {key: value for key, value in made.items() if not key.startswith("head")}
    (tmp_path / "model.json").write_text(json.dumps(older))

    assert torch.equal(ImageClassification.load(tmp_path)(images), model(images))


def test_the_average_of_the_weights_is_exported_where_there_is_one(tmp_path: Path):
    config, model, state = random_state()
    state["ema"] = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}

    ImageClassification.export(config, state, tmp_path)

    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == state["ema"].keys()
    assert all(
        torch.equal(tensor, state["ema"][name].to(tensor)) for name, tensor in tensors.items()
    )


def test_prediction_sees_an_image_as_evaluation_does(trained: tuple[ImageClassification, Path]):
    task, home = trained
    path = home / "digits" / "1" / "3.png"
    row = next(i for i, name in enumerate(names(home)) if name == path)
    stored = next(task.data.train.pixels.batches([[row]]))
    prepare = transforms.evaluation(32, *backbones.normalisation("efficientnet_lite0"))

    model = ImageClassification.load(home / "best")

    assert torch.equal(model.preprocess(Image.open(path)), prepare(stored)[0])


def names(home: Path):
    return [
        home / "digits" / label / f"{i}.png" for label in "01" for i in sorted(range(20), key=str)
    ]


def test_files_are_predicted_with_their_labels(trained: tuple[ImageClassification, Path]):
    _, home = trained
    paths = names(home)

    predictions = ImageClassification.load(home / "best").predict(paths, batch_size=7)

    assert [prediction.input for prediction in predictions] == [str(path) for path in paths]
    assert all(0.5 <= prediction.probability <= 1 for prediction in predictions)
    right = sum(
        prediction.label == Path(prediction.input).parent.name for prediction in predictions
    )
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
