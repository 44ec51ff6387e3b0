"""Texts as numbers, and back."""

from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BYTES = 256
PADDING = 0
"""The id that stands for no token: it fills up the shorter texts of a batch."""


class Vocabulary:
    """Tokens by number, learned from texts: byte-level BPE, as GPT-2's (Sennrich et al. 2016).

    Each of the 256 bytes is a token, and tokens that are often beside each other in a word are one
    more. So any text has tokens, words that no training text has too, and they give it back to the
    letter; a word-level vocabulary would lose what it does not know.

    Ids count from 1.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def build(cls, texts: Iterable[str], size: int) -> "Vocabulary":
        """Learn at most ``size`` tokens, the bytes among them; the same ones each time."""
        # none of its special tokens: a text may well hold what they are called
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def loads(cls, text: str) -> "Vocabulary":
        """From what :meth:`dumps` returned.

        Raises:
            ValueError: it is something else.

        """
        try:
            return cls(Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"this is no vocabulary: {error}") from error

    def dumps(self) -> str:
        """All of it, as JSON."""
        text: str = self._tokenizer.to_str()
        return text

    def __len__(self) -> int:
        """How many ids there are, the padding among them."""
        return 1 + int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens."""
        return _shifted(self._tokenizer.encode(text))

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Those of each text."""
        return [_shifted(encoding) for encoding in self._tokenizer.encode_batch(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these tokens, padding left out."""
        text: str = self._tokenizer.decode([i - 1 for i in ids if i != PADDING])
        return text


def _shifted(encoding: Any) -> list[int]:
    return [i + 1 for i in encoding.ids]
