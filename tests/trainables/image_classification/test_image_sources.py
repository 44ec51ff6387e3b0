from collections.abc import Callable
from pathlib import Path

import pytest
from digit_files import write_digits

from trainables.image_classification.sources import open_source


def empty(folder: Path):
    folder.mkdir()


def one_class(folder: Path):
    write_digits(folder, classes=[0])


def no_val(folder: Path):
    write_digits(folder / "train")


def val_knows_more(folder: Path):
    write_digits(folder / "train", classes=[0, 1])
    write_digits(folder / "val", classes=[0, 2])


def empty_val(folder: Path):
    write_digits(folder / "train")
    (folder / "val" / "0").mkdir(parents=True)


def too_few(folder: Path):
    write_digits(folder, count=1)


def a_class_without_images(folder: Path):
    write_digits(folder)
    (folder / "2").mkdir()


def a_file(folder: Path):
    folder.write_text("x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "is no folder: give a folder"),
        (a_file, "is no folder: give a folder"),
        (empty, "holds no images in class sub-folders: put"),
        (one_class, r"has one class only \(0\): give"),
        (no_val, r"class sub-folders in train/ but none in val/: give both"),
        (val_knows_more, r"train/ has no images of 2 \(0\): add"),
        (empty_val, "val/ has no images: add"),
        (too_few, r"has too few images of 0 \(1\), 1 \(1\) to split: give"),
        (a_class_without_images, r"has too few images of 2 \(0\) to split: give"),
    ],
)
def test_unsound_data_are_refused_before_anything_is_decoded(
    make: Callable[[Path], None], message: str, tmp_path: Path
):
    folder = tmp_path / "d"
    make(folder)

    with pytest.raises(ValueError, match=message) as refusal:
        open_source(str(folder))

    assert str(refusal.value).startswith(f"data is {str(folder)!r}")
    assert "\n" not in str(refusal.value)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_digits(tmp_path / "d")

    def forbidden(_path: Path):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", forbidden)  # permissions do not bind root

    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied"):
        open_source(str(folder))
