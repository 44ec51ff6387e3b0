from pathlib import Path

import pytest

from trainables.csv_file import Row, read_rows, read_table


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "list.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_a_line_is_named_by_where_it_begins(tmp_path: Path) -> None:
    file = write(tmp_path, 'text,label,split\n"two\nlines",a,val\n\n b , c ,test\n')

    assert read_rows(file, "it", "text") == [
        Row(2, "two\nlines", "a", "val"),
        Row(5, "b", "c", "test"),
    ]


def test_columns_come_in_any_order_and_a_text_may_hold_any_letter(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufefflabel,text\r\na,one\u2028\x0b\x1c\x85two\r\n")

    assert read_rows(file, "it", "text") == [Row(2, "one\u2028\x0b\x1c\x85two", "a", "train")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "text,class\n",
            r"it, whose first line is 'text,class': it must name the columns text and",
        ),
        ("text,label\n", "it, which lists no examples: add a line for each"),
        ("", "it, whose first line is ''"),
        (
            "text,label\na,b\n\nonly\n",
            "it, whose line 4 has not as many fields as the first: quote",
        ),
        ("text,label\na,b\n ,b\n", "it, whose line 3 has no text or no label: add it"),
        ("text,label\na,b\na,\n", "it, whose line 3 has no text or no label: add it"),
        (
            "text,label,split\na,b,dev\n",
            "it, whose line 2 has split 'dev': it must be one of train",
        ),
        (b"text,label\na,b\nb\xff,c\n", r"it, which is no .csv file \(line 3: .*0xff.*give one in"),
        ('text,label\na,b\n"a\nb,c\n', r"it, which is no .csv file \(line 3: unexpected end"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as refusal:
        read_rows(write(tmp_path, content), "it", "text")
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^it, which cannot be read \(No such file"):
        read_rows(tmp_path / "list.csv", "it", "text")


def test_a_table_has_whatever_columns_it_names(tmp_path: Path) -> None:
    header, lines = read_table(write(tmp_path, "id,text\n7,a\n"), "it")

    assert header == ["id", "text"]
    assert lines == [(2, {"id": "7", "text": "a"})]


def test_a_text_may_be_long(tmp_path: Path) -> None:
    long = "word " * 40_000 + "end"
    assert read_rows(write(tmp_path, f"text,label\n{long},a\n"), "it", "text")[0].value == long
