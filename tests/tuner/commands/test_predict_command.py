from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import CommandLine, InThisProcess
from trainables import Context
from trainables.image_classification import ImageClassification
from tuner.results import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose best/ holds a classifier, and beside it the images that it knows."""
    folder = tmp_path_factory.mktemp("predict")
    noise = np.random.default_rng(0)
    for label in ("tulip", "water lily"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            image.save(folder / "photos" / label / f"{number}.png")
    config = ImageClassification.Config(data=str(folder / "photos"), image_size=32)
    task = ImageClassification(config, Context(cache_dir=folder / "cache"))
    best = folder / "run" / "best"
    best.mkdir(parents=True)
    ImageClassification.export(config, task.state_dict(), best)
    name = "trainables.image_classification:ImageClassification"
    (best / "config.yaml").write_text(yaml.safe_dump({"trainable": name}))
    return folder / "run"


def test_each_image_gets_a_line_with_path_label_and_probability(run: Path) -> None:
    images = ["../photos/tulip/0.png", "../photos/water lily/1.png"]

    done = CommandLine(run, {})("predict", ".", *images)

    assert done.returncode == 0, done.stderr
    wanted = load_model(run).predict([run / image for image in images])
    assert done.stdout.splitlines() == [
        f"{image}\t{prediction.label}\t{prediction.probability:.4f}"
        for image, prediction in zip(images, wanted, strict=True)
    ]


def test_a_folder_stands_for_the_images_below_it(run: Path) -> None:
    (run.parent / "photos" / ".thumbnails").mkdir(exist_ok=True)
    (run.parent / "photos" / ".thumbnails" / "0.png").write_bytes(b"no image")
    (run.parent / "photos" / "labels.csv").write_text("no image")

    done = InThisProcess(run.parent, {})("predict", "run", "photos")

    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        f"photos/{label}/{number}.png" for label in ("tulip", "water lily") for number in range(3)
    ]


def test_a_folder_without_images_is_named(run: Path) -> None:
    (run / "empty").mkdir()
    done = InThisProcess(run, {})("predict", ".", "empty")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: empty holds no images: give images, or folders of them\n"


def test_a_file_that_is_no_image_is_named(run: Path) -> None:
    (run / "note.txt").write_text("no image")

    done = InThisProcess(run, {})("predict", "best", "../photos/tulip/0.png", "note.txt")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: note.txt is no image")


def test_a_folder_without_a_model_is_named(tuner_here: CommandLine, tmp_path: Path) -> None:
    done = tuner_here("predict", tmp_path, "image.png")

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} holds no model")
    assert len(done.stderr.splitlines()) == 1


def test_a_model_that_is_no_classifier_is_called_so(
    tuner_here: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("trainable: linear:Linear\n")
    (tmp_path / "linear.py").write_text(
        "from torch import nn\n"
        "class Linear:\n"
        "    train_epoch = print\n"
        "    load = classmethod(lambda cls, folder: nn.Linear(1, 1))\n"
    )

    done = tuner_here("predict", ".", "image.png")

    assert done.returncode == 1
    assert done.stderr.startswith("error: . holds a Linear, which has no predict()")
