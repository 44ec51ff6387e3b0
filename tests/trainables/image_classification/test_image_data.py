import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digit_files import write_digits
from PIL import Image

from trainables.image_classification import data, pixels
from trainables.image_classification.config import Settings
from trainables.image_classification.data import load_data
from trainables.image_classification.sources import open_source

torch.set_num_threads(1)

LARGE = 10**9


def load(
    folder: Path | str, tmp_path: Path, cache_bytes: int = LARGE, workers: int = 0, **more: Any
):
    config = Settings(data=str(folder), image_size=16, **more)
    return load_data(config, tmp_path / "cache", cache_bytes, workers)


def test_digits_are_split_once_and_for_all(tmp_path: Path):
    digits = load("digits", tmp_path)

    assert (len(digits.train), len(digits.val)) == (1400, 397)
    assert digits.labels == list("0123456789")
    assert set(digits.val.targets.bincount().tolist()) <= {38, 39, 40, 41}
    images, targets = digits.train.batch([0, 5])
    assert images.shape == (2, 3, 18, 18)
    assert images.stride(1) == 1  # channels last
    assert targets.tolist() == digits.train.targets[[0, 5]].tolist()


def test_train_and_val_folders_are_taken_as_they_are(tmp_path: Path):
    write_digits(tmp_path / "d" / "train", classes=[3, 7], count=4)
    write_digits(tmp_path / "d" / "val", classes=[7], count=2)

    found = load(tmp_path / "d", tmp_path)

    assert found.labels == ["3", "7"]
    assert found.train.targets.tolist() == [0] * 4 + [1] * 4
    assert found.val.targets.tolist() == [1, 1]
    pixels = np.asarray(Image.open(tmp_path / "d" / "val" / "7" / "0.png").convert("L"))
    expected = Image.fromarray(pixels).resize((18, 18), Image.Resampling.BILINEAR)
    assert np.array_equal(found.val.batch([0])[0][0, 0], np.asarray(expected))


def test_one_folder_is_split_alike_in_every_class_and_by_the_seed(tmp_path: Path):
    folder = write_digits(tmp_path / "d", classes=[0, 1, 2], count=10)
    write_digits(folder, classes=[3], count=2)

    first = load(folder, tmp_path, validation_fraction=0.3)
    same = load(folder, tmp_path, validation_fraction=0.3, max_images_per_class=100)
    other = load(folder, tmp_path, validation_fraction=0.3, split_seed=1)

    assert first.train.targets.bincount().tolist() == [7, 7, 7, 1]
    assert first.val.targets.bincount().tolist() == [3, 3, 3, 1]
    assert not set(first.train.rows) & set(first.val.rows)
    assert np.array_equal(first.val.rows, same.val.rows)
    assert not np.array_equal(first.val.rows, other.val.rows)


def test_max_images_per_class_spares_the_validation_set(tmp_path: Path):
    folder = write_digits(tmp_path / "d", count=10)

    found = load(folder, tmp_path, max_images_per_class=3)

    assert found.train.targets.bincount().tolist() == [3, 3]
    assert len(found.val) == 4


def test_a_class_may_be_called_train(tmp_path: Path):
    folder = write_digits(tmp_path / "d")
    (folder / "0").rename(folder / "train")

    assert load(folder, tmp_path).labels == ["1", "train"]


def test_hidden_files_and_files_beside_the_classes_are_no_images(tmp_path: Path):
    folder = write_digits(tmp_path / "d")
    (folder / "README.txt").write_text("about")
    (folder / "0" / ".DS_Store").write_text("x")
    (folder / "1" / ".thumbnails").mkdir()
    (folder / "1" / ".thumbnails" / "a.png").write_text("x")
    (folder / ".git").mkdir()

    found = load(folder, tmp_path)

    assert len(found.train) + len(found.val) == 12


def test_images_are_decoded_once_and_again_only_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write_digits(tmp_path / "d")
    decoded = []
    decode = pixels._decode
    monkeypatch.setattr(
        pixels, "_decode", lambda *arguments: (decoded.append(1), decode(*arguments))[1]
    )

    def forget_and_load(**more: Any):
        data._load.cache_clear()
        open_source.cache_clear()
        return load(folder, tmp_path, **more)

    first = forget_and_load()
    forget_and_load(split_seed=1, corrupt_images="skip")
    assert len(decoded) == 1
    shutil.copy(folder / "0" / "1.png", folder / "0" / "0.png")
    assert forget_and_load().content != first.content
    assert len(decoded) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_or_stored_the_same_indices_give_the_same_pixels(workers: int, tmp_path: Path):
    folder = write_digits(tmp_path / "d", classes=[0, 1, 2], count=8)
    stored = load(folder, tmp_path)
    streamed = load(folder, tmp_path, cache_bytes=0, workers=workers)
    assert (stored.entry is None, streamed.entry is None) == (False, True)
    assert streamed.content == stored.content

    for a, b in ((stored.train, streamed.train), (stored.val, streamed.val)):
        batches = [[3, 0, 1], [2], list(range(len(a)))[::-1]]
        for (images, targets), (same, same_targets) in zip(
            a.batches(batches), b.batches(batches), strict=True
        ):
            assert images.shape == (len(targets), 3, 18, 18)
            assert images.stride(1) == same.stride(1) == 1
            assert torch.equal(images, same)
            assert torch.equal(targets, same_targets)
        assert torch.equal(a.batch([1, 2])[0], b.batch([1, 2])[0])


def test_streaming_draws_no_random_numbers(tmp_path: Path):
    streamed = load(write_digits(tmp_path / "d"), tmp_path, cache_bytes=0)
    before = torch.get_rng_state()

    list(streamed.train.batches([[0, 1], [2, 3]]))

    assert torch.equal(torch.get_rng_state(), before)


def test_joined_has_the_rows_of_train_and_then_those_of_val(tmp_path: Path):
    found = load(write_digits(tmp_path / "d"), tmp_path)

    joined = found.joined()

    first, count = len(found.train), len(joined)
    assert count == 12
    assert torch.equal(joined.batch(range(first))[0], found.train.batch(range(first))[0])
    images, targets = joined.batch(range(first, count))
    assert torch.equal(images, found.val.batch(range(count - first))[0])
    assert torch.equal(targets, found.val.targets)


def test_images_of_test_are_in_neither_train_nor_val(tmp_path: Path):
    for part, count in (("train", 5), ("test", 3)):
        write_digits(tmp_path / "d" / part, count=count)

    found = load(tmp_path / "d", tmp_path)

    assert found.test is not None
    assert sorted([*found.train.rows, *found.val.rows]) == list(range(10))
    assert found.test.rows.tolist() == list(range(10, 16))
    assert found.test.targets.tolist() == [0] * 3 + [1] * 3
    assert load("digits", tmp_path).test is None


def test_the_digest_tells_apart_what_is_in_the_rows(tmp_path: Path):
    folder = write_digits(tmp_path / "d", count=10)
    base: dict[str, Any] = {"validation_fraction": 0.3}

    def content(**more: Any):
        return load(folder, tmp_path, **base | more).content

    changed = [
        content(),
        content(validation_fraction=0.4),
        content(split_seed=1),
        content(max_images_per_class=3),
        load_data(Settings(data=str(folder), image_size=20, **base), tmp_path / "c", LARGE).content,
    ]
    assert len(set(changed)) == len(changed)
    assert content(max_images_per_class=100) == content(corrupt_images="skip") == content()
    assert content(head_dropout=0.5) == content()


def test_another_label_changes_the_digest_and_decodes_nothing(tmp_path: Path):
    folder = write_digits(tmp_path / "d")
    names = [f"{digit}/{i}.png" for digit in (0, 1) for i in range(6)]

    def listed(name: str, labels: str):
        lines = ["path,label", *map(",".join, zip(names, labels, strict=True))]
        (folder / name).write_text("\n".join(lines))
        return load(folder / name, tmp_path)

    first, other = listed("a.csv", "aaaaaabbbbbb"), listed("b.csv", "ababababbbbb")

    assert first.content != other.content
    assert first.entry == other.entry


def test_a_trial_that_uses_what_the_process_has_open_counts_as_a_use(tmp_path: Path):
    folder = write_digits(tmp_path / "d")
    entry = load(folder, tmp_path).entry
    assert entry is not None
    marker = tmp_path / "cache" / entry / ".tuner-cache"
    os.utime(marker, (1, 1))

    load(folder, tmp_path)

    assert marker.stat().st_mtime > 1


@pytest.fixture
def spoiled(tmp_path: Path):
    """Twelve images, of which one is a text and one is cut in half."""
    folder = write_digits(tmp_path / "d")
    (folder / "0" / "note.txt").write_text("no image")
    cut = folder / "1" / "2.png"
    cut.write_bytes(cut.read_bytes()[:80])
    return folder


def test_files_that_are_no_images_are_refused_by_name(spoiled: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="2 of 13 files are no images") as refusal:
        load(spoiled, tmp_path)

    for part in ("0/note.txt (of no known image format)", "1/2.png (", "corrupt_images: skip"):
        assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_or_left_out_and_named_in_one_warning(
    spoiled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        found = load(spoiled, tmp_path, corrupt_images="skip")
        load(spoiled, tmp_path, corrupt_images="skip")

    assert len(found.train) + len(found.val) == 11
    (warning,) = caplog.messages
    assert "left out 2 files" in warning
    assert "0/note.txt" in warning


def test_files_that_are_no_images_are_refused_when_streamed_too(spoiled: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="2 of 13 files are no images"):
        load(spoiled, tmp_path, cache_bytes=0)

    skipped = load(spoiled, tmp_path, cache_bytes=0, corrupt_images="skip")
    stored = load(spoiled, tmp_path, corrupt_images="skip")

    assert skipped.content == stored.content
    assert torch.equal(skipped.train.batch(range(8))[0], stored.train.batch(range(8))[0])
