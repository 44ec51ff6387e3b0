import html

import pytest
import torch

from trainables.showing import Predictions
from trainables.text_classification.mistakes import write_mistakes


class Writer:
    def add_text(self, tag: str, text: str, step: int) -> None:
        self.written = tag, text, step


def table(*texts: str) -> list[str]:
    count = len(texts)
    predictions = Predictions(
        torch.zeros(count, dtype=torch.int64), torch.full((count,), 0.974), torch.arange(count) % 2
    )
    writer = Writer()
    write_mistakes(writer, texts, predictions, ["a|b", "c"], 3)
    tag, text, step = writer.written
    assert (tag, step) == ("texts", 3)
    return text.splitlines()[2:]


def test_each_text_has_a_line_with_what_it_was_taken_for_and_what_it_is() -> None:
    assert table("right, then", "wrong") == [
        "| a&#124;b (97 %) | the same | right, then |",
        "| a&#124;b (97 %) | **c** | wrong |",
    ]


@pytest.mark.parametrize("text", ["a|b", "<b>x</b> &amp; 'y'", "*a* _b_ `c` [d](e)", "# 1"])
def test_a_text_is_shown_as_it_is_whatever_markdown_would_make_of_it(text: str) -> None:
    (line,) = table(text)

    assert html.unescape(line.split(" | ")[2].removesuffix(" |")) == text
    assert not {*"<>*`[]#'"} & {*line.split(" | ")[2].replace("&#", "")}


def test_a_long_text_is_cut_and_its_lines_are_joined() -> None:
    (line,) = table("two\n\nlines " + "x" * 999)

    assert line.startswith("| a&#124;b (97 %) | the same | two lines xxx")
    assert line.endswith("xx.. |")
    assert len(line) < 450
