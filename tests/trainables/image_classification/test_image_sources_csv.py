from pathlib import Path

import pytest
from digit_files import write_digits

from trainables.image_classification.sources import open_source


@pytest.fixture
def images(tmp_path: Path):
    """A folder of 2 x 6 digits."""
    return write_digits(tmp_path / "images")


def write(folder: Path, *lines: str, name: str = "list.csv") -> str:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / name)


def test_a_list_names_the_images_their_classes_and_their_part(images: Path):
    data = write(
        images,
        "path,label,split",
        "0/0.png,zero,train",
        "1/0.png,one,train",
        "0/1.png,zero,val",
        '"1/1.png", one , test ',
        "",
    )

    source = open_source(data)

    assert source.names == ["0/0.png", "1/0.png", "0/1.png", "1/1.png"]
    assert source.labels == ["one", "zero"]
    assert source.targets.tolist() == [1, 0, 1, 0]
    assert source.validation is not None
    assert source.validation.tolist() == [False, False, True, False]
    assert source.test.tolist() == [False, False, False, True]
    assert source.read(1, 8).size == (8, 8)


def test_without_a_split_it_is_still_to_be_decided(images: Path):
    data = write(images, "label,path", *(f"{d},{d}/{i}.png" for d in (0, 1) for i in range(3)))

    source = open_source(data)

    assert source.validation is None
    assert not source.test.any()


def test_without_val_images_of_train_are_split(images: Path):
    lines = [f"{d}/{i}.png,{d},{'test' if i == 5 else 'train'}" for d in (0, 1) for i in range(6)]

    source = open_source(write(images, "path,label,split", *lines))

    assert source.validation is None
    assert source.test.sum() == 2


def test_paths_are_relative_to_data_root_or_absolute(images: Path, tmp_path: Path):
    lines = ["0/0.png,a", "0/1.png,a", "1/0.png,b", f"{images / '1' / '1.png'},b"]
    (tmp_path / "lists").mkdir()

    source = open_source(write(tmp_path / "lists", "path,label", *lines), str(images))

    assert [source.read(row, 8).size for row in range(4)] == [(8, 8)] * 4


def test_a_list_saved_by_a_spreadsheet_is_read(images: Path):
    lines = ["path,label", "0/0.png,a", "0/1.png,a", "1/0.png,é", "1/1.png,é"]
    (images / "list.CSV").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())

    assert open_source(str(images / "list.CSV")).labels == ["a", "é"]


def test_another_label_or_split_needs_no_image_decoded_again(images: Path):
    first = write(images, "path,label", "0/0.png,a", "0/1.png,a", "1/0.png,b", "1/1.png,b")
    other = write(
        images, "path,label", "0/0.png,b", "0/1.png,b", "1/0.png,a", "1/1.png,a", name="other.csv"
    )

    assert open_source(first).content == open_source(other).content


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,class", "0/0.png,a"], "whose first line is 'path,class': it must name"),
        (["path,label,Split", "0/0.png,a,val"], "whose first line is 'path,label,Split': it must"),
        (["path,label,label", "0/0.png,a,a"], "whose first line is 'path,label,label': it must"),
        ([""], "whose first line is '': it must name"),
        (["path,label"], "lists no examples: add"),
        (["path,label", "0/0.png,a", "", "0/1.png"], "line 4 has not as many fields"),
        (["path,label", "0/0.png,a,b"], "line 2 has not as many fields"),
        (["path,label", "0/0.png,"], "line 2 has no path or no label"),
        (["path,label,split", "0/0.png,a,dev"], "line 2 has split 'dev': it must be one of train"),
        (["path,label,split", "0/0.png,a,"], "line 2 has split ''"),
        (
            ["path,label", "0/0.png,a", "0/7.png,a", "1/0.png,b", "x/0.png,b", "0,b"],
            r"3 of 5 images are not there: 0/7.png \(line 3\), x/0.png \(line 5\), 0 \(line 6\)",
        ),
        (
            ["path,label,split", "0/0.png,a,train", "1/0.png,b,train", "0/0.png,a,val"],
            r"more than once: 0/0.png \(line 2\), 0/0.png \(line 4\): leave one",
        ),
        (["path,label", "0/0.png,a", "0/1.png,a"], r"one class only \(a\): give"),
        (["path,label", "0/0.png,a", "1/0.png,b"], r"too few images of a \(1\), b \(1\) to split"),
        (
            ["path,label,split", "0/0.png,a,train", "1/0.png,b,val"],
            r"no training images of b \(0\)",
        ),
    ],
)
def test_an_unsound_list_is_refused(lines: list[str], message: str, images: Path):
    data = write(images, *lines)

    with pytest.raises(ValueError, match=message) as refusal:
        open_source(data)

    assert str(refusal.value).startswith(f"data is {data!r}")
    assert "\n" not in str(refusal.value)


def test_a_list_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        open_source(str(tmp_path / "list.csv"))


def test_what_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,a\n")

    with pytest.raises(ValueError, match=r"is no \.csv file \(line 2: .*: give one in UTF-8"):
        open_source(str(tmp_path / "list.csv"))
