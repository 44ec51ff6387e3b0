import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainables.csv_file import read_table
from trainables.network import fill
from trainables.prediction import Prediction
from trainables.text_classification.config import Settings
from trainables.text_classification.data import padded
from trainables.text_classification.networks import Sizes, build
from trainables.text_classification.vocabulary import Vocabulary

_WEIGHTS, _LABELS, _MODEL = "model.safetensors", "labels.json", "model.json"
_VOCABULARY = "vocabulary.json"


class TextClassifier(nn.Module):
    """A trained model with all it takes to predict; in eval mode."""

    def __init__(
        self, model: nn.Module, labels: list[str], vocabulary: Vocabulary, max_tokens: int
    ) -> None:
        super().__init__()
        self.model = model
        self.labels = labels
        self.vocabulary = vocabulary
        self.max_tokens = max_tokens
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        """From (N, L) ids, with at most ``max_tokens`` a text, to (N, classes) logits."""
        return cast(Tensor, self.model(ids))

    @torch.inference_mode()
    def predict(self, texts: Sequence[str], batch_size: int = 32) -> list[Prediction]:
        """Predict the class of each text.

        Raises:
            ValueError: one has nothing in it.

        """
        device = next(self.parameters()).device
        found: list[Prediction] = []
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            ids = padded([self._ids(text) for text in batch]).to(device)
            best, classes = self(ids).softmax(1).max(1)
            answers = zip(batch, classes.tolist(), best.tolist(), strict=True)
            found.extend(Prediction(text, self.labels[i], share) for text, i, share in answers)
        return found

    def _ids(self, text: str) -> list[int]:
        """As in training: without the white space around it."""
        if not text.strip():
            raise ValueError("a text is empty: leave it out")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # what the command line got was in no encoding it knows
            raise ValueError(f"a text is no Unicode ({error}): give it in UTF-8") from error
        return self.vocabulary.encode(text.strip())[: self.max_tokens]

    def read_inputs(self, words: Sequence[str]) -> list[str]:
        """The texts that ``words`` of a command line stand for.

        A .txt file stands for its lines, a .csv file for its column ``text``; any other word is a
        text itself.

        Raises:
            ValueError: such a file is not there or cannot be read.

        """
        return [text for word in words for text in _texts(word)]

    def example_input(self, batch_size: int) -> Tensor:
        """Random ids (batch_size, max_tokens) int64, the last quarter of the first text padding."""
        ids = torch.randint(1, len(self.vocabulary), (batch_size, self.max_tokens))
        ids[0, -(self.max_tokens // 4) or self.max_tokens :] = 0
        return ids

    @classmethod
    def load(cls, directory: Path) -> "TextClassifier":
        """Load what :func:`export` wrote. Needs no network, and runs no code from the files.

        Raises:
            ValueError: a file is missing or damaged.

        """
        try:
            made = json.loads((directory / _MODEL).read_text(encoding="utf-8"))
            labels = json.loads((directory / _LABELS).read_text(encoding="utf-8"))
            vocabulary = Vocabulary.loads((directory / _VOCABULARY).read_text(encoding="utf-8"))
            tensors = load_file(directory / _WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"{directory} holds no exported text classifier ({error}): give the folder that "
                f"{_MODEL}, {_LABELS}, {_VOCABULARY} and {_WEIGHTS} are in"
            ) from error
        sizes = Sizes(**made["sizes"])
        model = build(made["network"], len(labels), sizes)
        if model.state_dict().keys() != tensors.keys():
            raise ValueError(f"{_WEIGHTS} and {_MODEL} in {directory} are of different models")
        fill(model, tensors)
        return cls(model, labels, vocabulary, sizes.max_tokens)


def export(config: Settings, state: dict[str, Any], directory: Path) -> None:
    """Write the model, and what it takes to rebuild and feed it.

    Args:
        config: the trial's settings.
        state: what ``TextClassification.state_dict`` returned. Where it has the average of the
            weights, that is written.
        directory: an existing folder.

    """
    vocabulary = Vocabulary.loads(state["vocabulary"])
    tensors = state.get("ema", state["model"])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / _WEIGHTS)
    made = {"network": config.network, "sizes": asdict(sizes(config, vocabulary))}
    (directory / _MODEL).write_text(json.dumps(made), encoding="utf-8")
    (directory / _LABELS).write_text(
        json.dumps(state["labels"], ensure_ascii=False), encoding="utf-8"
    )
    (directory / _VOCABULARY).write_text(state["vocabulary"], encoding="utf-8")


def sizes(config: Settings, vocabulary: Vocabulary) -> Sizes:
    """Of the network that ``config`` describes."""
    return Sizes(
        ids=len(vocabulary),
        max_tokens=config.max_tokens,
        embedding_dim=config.embedding_dim,
        layers=config.layers,
        heads=config.heads,
        dropout=config.dropout,
    )


def _texts(word: str) -> list[str]:
    path = Path(word)
    kind = path.suffix.lower()
    if kind not in (".txt", ".csv") or (len(word.split()) > 1 and not path.is_file()):
        return [word]
    if kind == ".csv":
        header, lines = read_table(path, str(path))
        if "text" not in header:
            raise ValueError(
                f"{path}, whose first line is {','.join(header)!r}: it must name a column text"
            )
        for line, fields in lines:
            if not fields["text"].strip():
                raise ValueError(f"{path}, whose line {line} has no text: add it, or leave it out")
        return [fields["text"] for _, fields in lines]
    try:
        lines_ = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): give it in UTF-8") from error
    return [line for line in lines_ if line.strip()]
