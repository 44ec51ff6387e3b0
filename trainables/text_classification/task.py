from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables import showing
from trainables.classification import Classification, Inputs
from trainables.optimization import Part
from trainables.task import Context
from trainables.text_classification import mistakes
from trainables.text_classification.classifier import TextClassifier, export, sizes
from trainables.text_classification.config import Settings
from trainables.text_classification.data import TextData, load_data
from trainables.text_classification.docstrings import DOCSTRINGS
from trainables.text_classification.networks import build
from trainables.text_classification.sources import open_source


class TextClassification(Classification):
    """Train a network on texts, from nothing but the texts.

    Vocabulary and encoded texts are made once for all trials that have them in common.
    """

    Config = Settings
    unit = "texts"
    logs = ("histograms", "texts", "confusion_matrix", "pr_curves", "projection", "graph")
    config: Settings
    data: TextData

    def __init__(self, config: Settings, context: Context) -> None:
        self.data = load_data(config, context.cache_dir, context.cache_bytes)
        torch.manual_seed(context.seed)  # the same weights on every rank, whatever ran here before
        super().__init__(
            config,
            context,
            model=build(config.network, len(self.data.labels), sizes(config, self.data.vocabulary)),
            labels=self.data.labels,
            examples=self.data.joined() if context.final else self.data.train,
        )
        as_it_is = nn.Identity()
        inputs = Inputs(self.examples, self.data.val, as_it_is, as_it_is, self.model)
        self._arrange(inputs, set(self.model.state_dict()), {"learning_rate": Part(self.model)})

    def _largest(self, count: int) -> tuple[Tensor, Tensor]:
        ids = torch.ones(count, self.config.max_tokens, dtype=torch.int64)
        return ids, torch.zeros(count, dtype=torch.int64)

    def _memory_kind(self) -> tuple[Any, ...]:
        made = sizes(self.config, self.data.vocabulary)
        return *super()._memory_kind(), self.config.network, made

    def _architecture(self) -> str:
        config = self.config
        return (
            f"network is {config.network!r}, layers {config.layers}, embedding_dim "
            f"{config.embedding_dim}, max_tokens {config.max_tokens}"
        )

    def test(self) -> Mapping[str, float]:
        """Evaluate on the texts kept for the end, where there are any."""
        if self.data.test is None:
            return {}
        tally = self._evaluate(self.data.test, self.inputs.prepare, self.parallelism.forward)
        return tally.metrics(self.labels, "")

    def _show_examples(self, writer: Any) -> None:
        chosen, predictions = self._most_telling(mistakes.TEXTS)
        texts = [self.data.vocabulary.decode(self.data.val.ids(index)) for index in chosen]
        mistakes.write_mistakes(writer, texts, predictions, self.labels, self.context.epoch + 1)

    def _show_graph(self, writer: Any) -> None:
        config = self.config
        example = torch.ones(1, config.max_tokens, dtype=torch.int64, device=self.context.device)
        key = config.network, len(self.labels), sizes(config, self.data.vocabulary)
        showing.write_graph(writer, self.model, example, key)

    def state_dict(self) -> dict[str, Any]:
        """What training changed, copied, and the vocabulary that it is about."""
        return super().state_dict() | {"vocabulary": self.data.vocabulary.dumps()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, exactly.

        Raises:
            ValueError: the state is of other classes, of another network or another vocabulary.

        """
        if state["vocabulary"] != self.data.vocabulary.dumps():
            raise ValueError(
                f"data is {self.config.data!r}, whose vocabulary is not the checkpoint's: resume "
                f"on the texts, and with the vocabulary_size, that it was trained with"
            )
        super().load_state_dict(state)

    @classmethod
    def check(cls, config: Settings, world_size: int) -> None:
        """Refuse unsound data, and numbers that do not fit them.

        Raises:
            ValueError: naming the key, the value, what must hold and what to do.

        """
        Context(world_size=world_size).local_batch_size(config.batch_size)
        if config.data != DOCSTRINGS:  # those are as they must be, and take seconds
            open_source(config.data)

    @classmethod
    def has_test(cls, config: Settings) -> bool:
        """Whether the data have texts kept for the end."""
        return config.data != DOCSTRINGS and bool(open_source(config.data).test.any())

    @classmethod
    def export(cls, config: Settings, state: dict[str, Any], directory: Path) -> None:
        """Write the trained model into ``directory``; see :func:`classifier.export`."""
        export(config, state, directory)

    @classmethod
    def load(cls, directory: Path) -> TextClassifier:
        """Load what :meth:`export` wrote."""
        return TextClassifier.load(directory)
