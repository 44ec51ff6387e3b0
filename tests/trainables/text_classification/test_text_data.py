import csv
from pathlib import Path

import pytest
import torch
from docstring_files import write_docstrings

from trainables.text_classification import data as module
from trainables.text_classification.config import Settings
from trainables.text_classification.data import TextData, load_data
from trainables.text_classification.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_docstrings(home / "texts.csv")
    return home


def load(home: Path, cache: Path | None = None, **more: object) -> TextData:
    values = {"data": str(home / "texts.csv"), "vocabulary_size": 500, "max_tokens": 16}
    return load_data(Settings.model_validate({**values, **more}), cache or home / "cache", 10**9)


def test_a_batch_has_the_beginnings_of_its_texts_and_is_filled_up(home: Path) -> None:
    data = load(home)
    ids, targets = next(data.train.batches([[3, 0, 5]]))

    with (home / "texts.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert ids.dtype == targets.dtype == torch.int64
    assert ids.shape[1] <= 16
    for row, index in zip(ids, [3, 0, 5], strict=True):
        text = texts[int(data.train.rows[index])]
        kept = row[row > 0].tolist()
        assert data.vocabulary.encode(text)[:16] == kept
        assert not row[len(kept) :].any()
    assert [data.labels[i] for i in targets] == ["asyncio"] * 3


def test_of_every_class_the_same_part_is_held_out_and_no_text_is_in_both(home: Path) -> None:
    data = load(home, validation_fraction=0.25)

    assert torch.bincount(data.val.targets).tolist() == [20, 20, 20]
    assert not set(data.train.rows) & set(data.val.rows)
    assert len(data.joined()) == 240
    assert data.joined().targets.tolist() == [*data.train.targets, *data.val.targets]
    assert load(home, validation_fraction=0.25).val.rows.tolist() == data.val.rows.tolist()
    assert load(home, split_seed=1, validation_fraction=0.25).val.rows.tolist() != (
        data.val.rows.tolist()
    )


def test_the_vocabulary_is_of_the_training_texts_alone(home: Path, tmp_path: Path) -> None:
    with (home / "texts.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    for name, word in (("texts.csv", "the"), ("unseen.csv", "zyzzyva")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "split"])
            for number, (text, label) in enumerate(rows):
                held_out = number % 3 == 0
                own = f"{text} {word} {word}" if held_out else text
                writer.writerow([own, label, "val" if held_out else "train"])

    ours = load(home, tmp_path / "cache", data=str(tmp_path / "texts.csv"))
    other = load(home, tmp_path / "cache", data=str(tmp_path / "unseen.csv"))

    assert other.vocabulary.dumps() == ours.vocabulary.dumps()
    whole = other.val.encoded.row(int(other.val.rows[0]), 999)
    assert other.vocabulary.decode(whole.tolist()).endswith(" zyzzyva zyzzyva")


def test_a_node_encodes_once_and_trials_share_what_they_have_in_common(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(home, tmp_path)
    assert load(home, tmp_path, max_tokens=8).train.encoded is first.train.encoded
    monkeypatch.setattr(Vocabulary, "build", None)
    module._open.cache_clear()  # as another process

    again = load(home, tmp_path)

    assert again.vocabulary.dumps() == first.vocabulary.dumps()
    assert again.train.encoded.ids.tolist() == first.train.encoded.ids.tolist()


def test_without_a_cache_all_is_the_same(home: Path, tmp_path: Path) -> None:
    values = {"data": str(home / "texts.csv"), "vocabulary_size": 500, "max_tokens": 16}
    bare = load_data(Settings.model_validate(values), tmp_path, 0)

    assert not list(tmp_path.glob("texts-*/*"))
    assert bare.train.encoded.ids.tolist() == load(home).train.encoded.ids.tolist()
