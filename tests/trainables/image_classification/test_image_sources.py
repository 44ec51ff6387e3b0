import pickle
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


def a_new_class_in_test(folder: Path):
    for part, classes in (("train", [0, 1]), ("val", [0]), ("test", [1, 2])):
        write_digits(folder / part, classes=classes)


def val_and_test(folder: Path):
    write_digits(folder / "val")
    write_digits(folder / "test")


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
        (val_knows_more, r"has no training images of 2 \(0\): add"),
        (a_new_class_in_test, r"has no training images of 2 \(0\): add"),
        (val_and_test, r"class sub-folders in val/ but none in train/: give both"),
        (empty_val, "has no validation images: add"),
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


def test_images_of_test_are_kept_apart(tmp_path: Path):
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        write_digits(tmp_path / "d" / part, count=count)

    source = open_source(str(tmp_path / "d"))

    assert source.validation is not None
    assert [source.names[row] for row in source.test.nonzero()[0]] == [
        "test/0/0.png",
        "test/0/1.png",
        "test/1/0.png",
        "test/1/1.png",
    ]
    assert source.validation.sum() == 6
    assert not (source.validation & source.test).any()


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_val_goes_by_other_names_too(tmp_path: Path, name: str):
    for part, count in (("train", 4), (name, 3), ("test", 2)):
        write_digits(tmp_path / "d" / part, count=count)

    source = open_source(str(tmp_path / "d"))

    assert source.validation is not None
    assert source.validation.sum() == 6
    assert {
        n.split("/")[0] for n, val in zip(source.names, source.validation, strict=True) if val
    } == {name}


def test_two_folders_for_validation_are_one_too_many(tmp_path: Path):
    for part in ("train", "val", "valid"):
        write_digits(tmp_path / "d" / part)

    with pytest.raises(ValueError, match="has both val/ and valid/: take one of them away"):
        open_source(str(tmp_path / "d"))


def test_without_val_what_is_beside_test_is_still_to_be_split(tmp_path: Path):
    write_digits(tmp_path / "d" / "train", count=4)
    write_digits(tmp_path / "d" / "test", count=2)

    source = open_source(str(tmp_path / "d"))

    assert source.validation is None
    assert source.test.sum() == 4


def test_a_test_folder_without_classes_is_left_alone(tmp_path: Path):
    for part in ("train", "val"):
        write_digits(tmp_path / "d" / part, count=3)
    (tmp_path / "d" / "test").mkdir()
    (tmp_path / "d" / "test" / "unlabelled.png").write_bytes(b"x")

    source = open_source(str(tmp_path / "d"))

    assert len(source.names) == 12
    assert not source.test.any()


def test_a_class_may_be_called_test(tmp_path: Path):
    folder = write_digits(tmp_path / "d")
    (folder / "0").rename(folder / "test")

    source = open_source(str(folder))

    assert source.labels == ["1", "test"]
    assert not source.test.any()


@pytest.mark.parametrize("data", ["digits", "folder"])
def test_a_source_can_go_to_another_process(data: str, tmp_path: Path):
    source = open_source(data if data == "digits" else str(write_digits(tmp_path / "d")))

    there = pickle.loads(pickle.dumps(source.read))  # noqa: S301 - our own

    assert there(3, 16).tobytes() == source.read(3, 16).tobytes()
