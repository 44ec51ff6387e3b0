import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainables.image_classification import backbones, transforms
from trainables.image_classification.config import Settings
from trainables.image_classification.decoding import read_image, stored_size, to_rgb, to_square
from trainables.image_classification.sources.files import visible_files
from trainables.network import fill
from trainables.prediction import Prediction

_WEIGHTS, _LABELS, _MODEL = "model.safetensors", "labels.json", "model.json"


class ImageClassifier(nn.Module):
    """A trained model with all it takes to predict; in eval mode."""

    def __init__(
        self,
        model: nn.Module,
        labels: list[str],
        image_size: int,
        mean: transforms.Channels,
        std: transforms.Channels,
    ) -> None:
        super().__init__()
        self.model = model
        self.labels = labels
        self.image_size = image_size
        self.prepare = transforms.evaluation(image_size, mean, std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """From (N, 3, image_size, image_size) normalised images to (N, classes) logits."""
        return cast(Tensor, self.model(images))

    def preprocess(self, image: Image.Image) -> Tensor:
        """The (3, image_size, image_size) input of an image, as evaluation makes it."""
        pixels = torch.tensor(to_square(to_rgb(image), stored_size(self.image_size)))
        return cast(Tensor, self.prepare(pixels.permute(2, 0, 1)))

    @torch.inference_mode()
    def predict(self, paths: Sequence[Path | str], batch_size: int = 32) -> list[Prediction]:
        """Predict the class of each image file.

        Raises:
            ValueError: a file cannot be read, or is no image.

        """
        device = next(self.parameters()).device
        found: list[Prediction] = []
        for start in range(0, len(paths), batch_size):
            batch = [Path(path) for path in paths[start : start + batch_size]]
            images = torch.stack([self.preprocess(self._read(path)) for path in batch]).to(device)
            best, classes = self(images).softmax(1).max(1)
            answers = zip(batch, classes.tolist(), best.tolist(), strict=True)
            found.extend(Prediction(str(path), self.labels[i], share) for path, i, share in answers)
        return found

    def read_inputs(self, words: Sequence[str]) -> list[Path]:
        """The image files that ``words`` of a command line stand for; a folder: for all below it.

        Raises:
            ValueError: a folder cannot be read, or holds no images, by their suffixes.

        """
        return [path for word in words for path in _image_files(Path(word))]

    def example_input(self, batch_size: int) -> Tensor:
        """Random images (batch_size, 3, image_size, image_size), as :meth:`forward` takes them."""
        return torch.randn(batch_size, 3, self.image_size, self.image_size)

    def _read(self, path: Path) -> Image.Image:
        """Decode as for training: a large JPEG no larger than is needed."""
        try:
            return read_image(path.read_bytes(), stored_size(self.image_size))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{path} is no image: {error}") from error

    @classmethod
    def load(cls, directory: Path) -> "ImageClassifier":
        """Load what :func:`export` wrote. Needs no network, and runs no code from the files.

        Raises:
            ValueError: a file is missing or damaged.

        """
        try:
            made = json.loads((directory / _MODEL).read_text(encoding="utf-8"))
            labels = json.loads((directory / _LABELS).read_text(encoding="utf-8"))
            tensors = load_file(directory / _WEIGHTS)
        except (OSError, json.JSONDecodeError, SafetensorError) as error:
            raise ValueError(
                f"{directory} holds no exported image classifier ({error}): give the folder that "
                f"{_MODEL}, {_LABELS} and {_WEIGHTS} are in"
            ) from error
        model = backbones.build(
            made["backbone"],
            len(labels),
            "none",
            head=made.get("head", "linear"),  # an older file says nothing of it
            head_dropout=made.get("head_dropout", 0.0),
        )
        if model.state_dict().keys() != tensors.keys():
            raise ValueError(f"{_WEIGHTS} and {_MODEL} in {directory} are of different models")
        fill(model, tensors)
        return cls(model, labels, made["image_size"], tuple(made["mean"]), tuple(made["std"]))


def _image_files(path: Path) -> list[Path]:
    kinds = Image.registered_extensions()
    try:
        if not path.is_dir():
            return [path]
        found = [file for file in visible_files(path) if file.suffix.lower() in kinds]
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    if not found:
        raise ValueError(f"{path} holds no images: give images, or folders of them")
    return found


def export(config: Settings, state: dict[str, Any], directory: Path) -> None:
    """Write the whole model, frozen weights too, and what it takes to rebuild and feed it.

    Args:
        config: the trial's settings.
        state: what ``ImageClassification.state_dict`` returned. Where it has the average of the
            weights, that is written.
        directory: an existing folder.

    """
    labels = state["labels"]
    model = backbones.build(
        config.backbone,
        len(labels),
        config.weights,
        head=config.head,
        head_dropout=config.head_dropout,
    )
    # What is in neither was frozen: it is as it was built.
    fill(model, state.get("ema", state["model"]))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, directory / _WEIGHTS)
    mean, std = backbones.normalisation(config.backbone)
    made = {
        "backbone": config.backbone,
        "head": config.head,
        "head_dropout": config.head_dropout,
        "image_size": config.image_size,
        "mean": mean,
        "std": std,
    }
    (directory / _LABELS).write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    (directory / _MODEL).write_text(json.dumps(made), encoding="utf-8")
