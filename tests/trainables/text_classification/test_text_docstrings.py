import inspect
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from trainables.cache import DiskCache
from trainables.text_classification import docstrings
from trainables.text_classification.docstrings import TOPICS, load_docstrings


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> DiskCache:
    return DiskCache(tmp_path_factory.mktemp("cache"), 10**9)


@pytest.fixture(scope="module")
def pairs(cache: DiskCache) -> list[tuple[str, str]]:
    return load_docstrings(cache)


def test_every_topic_has_many_and_none_has_most(pairs: list[tuple[str, str]]) -> None:
    counts = Counter(topic for _, topic in pairs)

    assert counts.keys() == TOPICS.keys()
    assert min(counts.values()) >= 150
    assert max(counts.values()) < 0.2 * len(pairs)


def test_no_text_is_there_twice(pairs: list[tuple[str, str]]) -> None:
    letters = Counter(re.sub(r"[\W\d_]+", "", text.lower()) for text, _ in pairs)

    assert max(letters.values()) == 1


def test_a_docstring_has_the_topic_of_its_module(pairs: list[tuple[str, str]]) -> None:
    topics = dict(pairs)

    for function, topic in [(random.choices, "mathematics"), (shutil.copyfileobj, "files")]:
        text = " ".join((inspect.getdoc(function) or "").split())
        assert topics[text] == topic


def test_a_node_reads_the_sources_once(
    cache: DiskCache, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docstrings, "read_docstrings", None)

    assert load_docstrings(cache) == pairs


def test_without_a_cache_they_are_read_anew(
    pairs: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docstrings, "read_docstrings", lambda: pairs[:3])

    assert load_docstrings(DiskCache(tmp_path, 0)) == load_docstrings(None) == pairs[:3]
