import logging
from pathlib import Path

import pytest

from trainables.text_classification.sources import open_source


def write(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_a_csv_names_texts_their_classes_and_their_part(tmp_path: Path) -> None:
    file = write(
        tmp_path / "all.csv",
        "text,label,split",
        "good,yes,train", "bad,no,train", '"good, or bad",no,val', "fine,yes,test",
    )  # fmt: skip

    source = open_source(str(file))

    assert source.texts == ["good", "bad", "good, or bad", "fine"]
    assert source.labels == ["no", "yes"]
    assert source.targets.tolist() == [1, 0, 0, 1]
    assert source.validation is not None
    assert source.validation.tolist() == [False, False, True, False]
    assert source.test.tolist() == [False, False, False, True]


def test_a_folder_has_a_csv_for_each_part(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / f"{split}.csv", "text,label", f"{split} a,a", f"{split} b,b")

    source = open_source(str(tmp_path))

    assert source.validation is not None
    val, test = source.validation, source.test
    assert [text for text, is_val in zip(source.texts, val, strict=True) if is_val] == [
        "val a", "val b",
    ]  # fmt: skip
    assert test.sum() == 2


def test_a_text_listed_again_counts_once_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train.csv", "text,label", "one,a", "two,b", "one,a")
    write(tmp_path / "val.csv", "text,label", "two,b", "three,a")

    with caplog.at_level(logging.WARNING):
        source = open_source(str(tmp_path))

    assert source.texts == ["one", "two", "three"]
    assert "left out 2 texts listed before: train.csv, line 4, val.csv, line 2" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["text,label", "a,x", "b,y", "a,y"],
            r"a text is 'x' \(line 2\) and 'y' \(line 4\): leave",
        ),
        (["text,label", "a,x", "b,x"], r"one class only \(x\): give texts of at least two"),
        (["text,label", "a,x", "b,x", "c,y"], r"too few texts of y \(1\) to split"),
        (["text,label,split", "a,x,train", "b,y,val"], r"no training texts of y \(0\)"),
        (["text,topic", "a,x"], "whose first line is 'text,topic': it must name the columns text"),
        (["text,label", "a,x", ",x"], "whose line 3 has no text or no label"),
    ],
)
def test_an_unsound_csv_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    file = write(tmp_path / "all.csv", *lines)

    with pytest.raises(ValueError, match=message) as refusal:
        open_source(str(file))
    assert str(refusal.value).startswith(f"data is {str(file)!r}")


def test_a_fault_in_a_folder_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label", "a,x", "b,y")
    write(tmp_path / "val.csv", "text,label", "c")

    with pytest.raises(ValueError, match=r"in it val\.csv, whose line 2 has not as many fields"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.csv", r"cannot be read \(No such file"),
        ("nowhere", "is not there: give a .csv file of text and label"),
        ("note.txt", "is no .csv file: give"),
        ("folder", r"a folder without train\.csv and val\.csv: give"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "note.txt").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(ValueError, match=message):
        open_source(str(tmp_path / name))
