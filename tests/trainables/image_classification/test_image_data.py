import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digit_files import write_digits
from PIL import Image

from trainables.image_classification import data
from trainables.image_classification.config import Settings
from trainables.image_classification.data import load_data
from trainables.image_classification.sources import open_source


def load(folder: Path | str, tmp_path: Path, **more: Any):
    return load_data(Settings(data=str(folder), image_size=16, **more), tmp_path / "cache")


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
    assert not set(first.train._rows) & set(first.val._rows)
    assert np.array_equal(first.val._rows, same.val._rows)
    assert not np.array_equal(first.val._rows, other.val._rows)


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
    decode = data._decode
    monkeypatch.setattr(data, "_decode", lambda *arguments: (decoded.append(1), decode(*arguments)))

    def forget_and_load(**more: Any):
        data._load.cache_clear()
        open_source.cache_clear()
        load(folder, tmp_path, **more)

    forget_and_load()
    forget_and_load(split_seed=1, corrupt_images="skip")
    assert len(decoded) == 1
    shutil.copy(folder / "0" / "1.png", folder / "0" / "0.png")
    forget_and_load()
    assert len(decoded) == 2


def test_those_who_come_together_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_digits(tmp_path / "d")
    source = open_source(str(folder))
    decoded = []
    decode = data._decode
    monkeypatch.setattr(data, "_decode", lambda *arguments: (decoded.append(1), decode(*arguments)))

    with ThreadPoolExecutor(4) as pool:
        all_images = list(
            pool.map(lambda _: data._decoded(source, 16, tmp_path / "cache")[0], range(4))
        )

    assert len(decoded) == 1
    assert all(np.array_equal(images, all_images[0]) for images in all_images)


def test_a_build_that_was_cut_short_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_digits(tmp_path / "d")
    source = open_source(str(folder))

    def cut_short(_source: object, _size: int, partial: Path):
        (partial / "images.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "_decode", cut_short)
        with pytest.raises(KeyboardInterrupt):
            data._decoded(source, 16, tmp_path / "cache")

    assert data._decoded(source, 16, tmp_path / "cache")[0].shape == (12, 16, 16, 3)


def test_stored_images_are_read_only(tmp_path: Path):
    images, _ = data._decoded(open_source("digits"), 16, tmp_path)

    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


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


def test_a_file_that_may_not_be_read_is_not_called_corrupt(tmp_path: Path):
    folder = write_digits(tmp_path / "d")
    source = open_source(str(folder))
    (folder / "0" / "3.png").unlink()  # after the folder was looked at

    with pytest.raises(ValueError, match=r"of which .*3\.png cannot be read \(No such file"):
        data._decoded(source, 16, tmp_path / "cache")


def test_images_that_would_not_fit_on_the_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    free = shutil._ntuple_diskusage(10, 0, 10)
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: free)

    with pytest.raises(ValueError, match="make room, or give a smaller image_size"):
        load("digits", tmp_path)
