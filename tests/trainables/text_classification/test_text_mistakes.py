import html

import pytest
import torch

from trainables.showing import Predictions
from trainables.text_classification.mistakes import write_mistakes


class Writer:
    def add_text(self, tag: str, text: str, step: int) -> None:
        self.written = tag, text, step


def listed(*texts: str) -> list[str]:
    count = len(texts)
    predictions = Predictions(
        torch.zeros(count, dtype=torch.int64), torch.full((count,), 0.974), torch.arange(count) % 2
    )
    writer = Writer()
    write_mistakes(writer, texts, predictions, ["a|b", "c"], 3)
    tag, text, step = writer.written
    assert (tag, step) == ("texts", 3)
    return text.splitlines()


def test_each_text_has_a_line_with_what_it_was_taken_for_and_what_it_is() -> None:
    assert listed("right, then", "wrong") == [
        "- **a&#124;b** (97 %): right, then",
        "- **c** taken for **a&#124;b** (97 %): wrong",
    ]


@pytest.mark.parametrize("text", ["a|b", "<b>x</b> &amp; 'y'", "*a* _b_ `c` [d](e)", "# 1"])
def test_a_text_is_shown_as_it_is_whatever_markdown_would_make_of_it(text: str) -> None:
    (line,) = listed(text)

    assert html.unescape(line.partition(": ")[2]) == text
    assert not {*"<>*_`[]#'"} & {*line.partition(": ")[2].replace("&#", "")}


def test_a_long_text_is_cut_and_its_lines_are_joined() -> None:
    (line,) = listed("two\n\nlines " + "x" * 999)

    assert line.startswith("- **a&#124;b** (97 %): two lines xxx")
    assert line.endswith("xx..")
    assert len(line) < 450
