import inspect
import os
import random
import subprocess
import sys

import pytest

from trainables.text_classification.vocabulary import BYTES, PADDING, Vocabulary

TEXTS = ["the logger writes the record", "the handler writes what the logger has"]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.build(TEXTS, 300)


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "zyzzyva, quixotically",
        "naïve café, 日本語, 🤖, ﬁ",
        "two  spaces,\ta tab,\r\na line and a nul \0",
        " begins and ends with a space ",
        "[PAD] [UNK] <unk> <s> Ġ",
        "",
    ],
)
def test_decoding_gives_the_text_back_whatever_words_are_in_it(
    vocabulary: Vocabulary, text: str
) -> None:
    ids = vocabulary.encode(text)

    assert vocabulary.decode(ids) == text
    assert vocabulary.decode([*ids, PADDING, PADDING]) == text
    assert all(PADDING < i < len(vocabulary) for i in ids)


def test_what_is_often_beside_each_other_is_one_token(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.encode(" logger")) == 1
    assert len(vocabulary.encode("zyzzyva")) == 7


def test_several_texts_are_encoded_as_each_is(vocabulary: Vocabulary) -> None:
    assert vocabulary.encode_all(TEXTS) == [vocabulary.encode(text) for text in TEXTS]


def test_its_size_is_bounded(vocabulary: Vocabulary) -> None:
    assert BYTES + 1 < len(vocabulary) <= 301
    assert len(Vocabulary.build(TEXTS, BYTES)) == BYTES + 1


def test_it_survives_as_text(vocabulary: Vocabulary) -> None:
    again = Vocabulary.loads(vocabulary.dumps())

    assert again.dumps() == vocabulary.dumps()
    assert again.encode(TEXTS[0]) == vocabulary.encode(TEXTS[0])
    with pytest.raises(ValueError, match="this is no vocabulary"):
        Vocabulary.loads("{}")


def test_another_process_learns_the_same_from_the_same_texts() -> None:
    code = (
        "import inspect, random\n"
        "from trainables.text_classification.vocabulary import Vocabulary\n"
        "print(Vocabulary.build(inspect.getsource(random).splitlines(), 600).dumps())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    here = Vocabulary.build(inspect.getsource(random).splitlines(), 600)
    assert done.stdout.strip() == here.dumps()
    assert len(here) == 601
