"""What a trial trains on and is judged by: which texts, as ids of tokens, and of which class."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trainables.cache import DiskCache
from trainables.labelled import Rows
from trainables.text_classification.config import Settings
from trainables.text_classification.sources import Source, open_source
from trainables.text_classification.vocabulary import PADDING, Vocabulary

_LAYOUT = 1  # raise it when vocabularies or ids are made or stored in another way
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """All texts of a source as ids, one behind the other, and the vocabulary that they are of."""

    vocabulary: Vocabulary
    ids: NDArray[np.int32]
    ends: NDArray[np.int64]
    """Of each text, where in ``ids`` it ends."""

    def row(self, row: int, most: int) -> NDArray[np.int32]:
        """The first ``most`` ids of a text."""
        start = int(self.ends[row - 1]) if row else 0
        return self.ids[start : min(int(self.ends[row]), start + most)]


class TextSet(Dataset[tuple[Tensor, Tensor]]):
    """Some rows of a source's texts, with the class of each. An index counts these rows."""

    def __init__(self, encoded: Encoded, rows: Rows, targets: Tensor, max_tokens: int) -> None:
        self.encoded = encoded
        self.rows = rows
        self.max_tokens = max_tokens
        self.targets = targets
        """The class of each text: (N,) int64."""

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, index: int) -> NDArray[np.int32]:
        """What the network sees of a text."""
        return self.encoded.row(int(self.rows[index]), self.max_tokens)

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each list of indices, ids (n, L) int64 and classes (n,) int64.

        L is the length of the longest of these texts; shorter ones end in padding.
        """
        for indices in batches:
            yield padded([self.ids(index) for index in indices]), self.targets[indices]


@dataclass(frozen=True)
class TextData:
    """What a trial trains on, what it is judged by, and the classes in the order of the logits."""

    train: TextSet
    val: TextSet
    test: TextSet | None
    """For the test of what came out, where the data have texts for that."""
    labels: list[str]
    vocabulary: Vocabulary

    def joined(self) -> TextSet:
        """Train and val as one set; the rows of train come first."""
        train, val = self.train, self.val
        rows = np.concatenate([train.rows, val.rows])
        targets = torch.cat([train.targets, val.targets])
        return TextSet(train.encoded, rows, targets, train.max_tokens)


def padded(texts: Sequence[Any]) -> Tensor:
    """Ids of several texts as (n, L) int64."""
    longest = max(map(len, texts))
    batch = np.full((len(texts), longest), PADDING, dtype=np.int64)
    for row, ids in zip(batch, texts, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(batch)


def load_data(settings: Settings, cache_dir: Path, cache_bytes: int) -> TextData:
    """Open the texts that ``settings`` name, encoding them first where no trial did so yet.

    Args:
        settings: the trial's settings.
        cache_dir: where encoded texts are kept, for all processes of the node.
        cache_bytes: the most it may hold. Texts that do not fit are encoded by every process.

    Raises:
        ValueError: the data cannot be used; the message says what to do.

    """
    opened = _open(
        data=settings.data,
        validation_fraction=settings.validation_fraction,
        split_seed=settings.split_seed,
        vocabulary_size=settings.vocabulary_size,
        cache_dir=cache_dir,
        cache_bytes=cache_bytes,
    )
    targets = torch.from_numpy(opened.source.targets)
    train, val, test = (
        TextSet(opened.encoded, rows, targets[rows], settings.max_tokens)
        for rows in (opened.train, opened.val, opened.test)
    )
    return TextData(
        train=train,
        val=val,
        test=test if len(test) else None,
        labels=opened.source.labels,
        vocabulary=opened.encoded.vocabulary,
    )


class _Opened(NamedTuple):
    source: Source
    train: Rows
    val: Rows
    test: Rows
    encoded: Encoded


# The arguments are those of Settings that matter here: trials that differ in others share the data.
@lru_cache(maxsize=4)
def _open(
    *,
    data: str,
    validation_fraction: float,
    split_seed: int,
    vocabulary_size: int,
    cache_dir: Path,
    cache_bytes: int,
) -> _Opened:
    source = open_source(data, cache_dir, cache_bytes)
    rows = np.arange(len(source.texts))
    train, val = source.split(rows[~source.test], validation_fraction, split_seed)
    encoded = _encoded(source, train, vocabulary_size, DiskCache(cache_dir, cache_bytes))
    return _Opened(source, train, val, rows[source.test], encoded)


def _encoded(source: Source, train: Rows, vocabulary_size: int, cache: DiskCache) -> Encoded:
    """The texts of ``source``, in a vocabulary of those in ``train``.

    The first process of a node to come encodes them into the cache; the others wait for it.
    """
    key = hashlib.sha256(json.dumps([_LAYOUT, source.content, vocabulary_size]).encode())
    key.update(train.tobytes())
    name = f"texts-{key.hexdigest()[:24]}"
    with cache.lock(name):
        folder = cache.get(name)
        if folder is not None:
            return _read(folder)
        _logger.info("%s: encoding %d texts, once", source.data, len(source.texts))
        vocabulary = Vocabulary.build((source.texts[row] for row in train), vocabulary_size)
        ids = vocabulary.encode_all(source.texts)
        encoded = Encoded(
            vocabulary,
            np.fromiter((i for own in ids for i in own), np.int32),
            np.cumsum([len(own) for own in ids]),
        )
        text = vocabulary.dumps().encode()
        if partial := cache.make(name, encoded.ids.nbytes + encoded.ends.nbytes + len(text)):
            np.save(partial / "ids.npy", encoded.ids)
            np.save(partial / "ends.npy", encoded.ends)
            (partial / "vocabulary.json").write_bytes(text)
            return _read(cache.keep(name))
    return encoded


def _read(folder: Path) -> Encoded:
    return Encoded(
        Vocabulary.loads((folder / "vocabulary.json").read_text(encoding="utf-8")),
        np.load(folder / "ids.npy", mmap_mode="r"),
        np.load(folder / "ends.npy"),
    )
