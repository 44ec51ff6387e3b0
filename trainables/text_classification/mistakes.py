"""A table of texts with what they were taken for, as TensorBoard shows it."""

import re
from collections.abc import Sequence
from typing import Any

from trainables.showing import Predictions

TEXTS = 24
"""At most so many texts are in a table."""
_LONGEST = 400
"""Characters of a text."""


def write_mistakes(
    writer: Any, texts: Sequence[str], predictions: Predictions, labels: Sequence[str], step: int
) -> None:
    """Write a Markdown table of ``texts``, mistakes first, as ``predictions`` has them."""
    lines = ["| taken for | is | text |", "|---|---|---|"]
    columns = predictions.predicted, predictions.true, predictions.confidence
    for text, *found in zip(texts, *(column.tolist() for column in columns), strict=True):
        predicted, true, confidence = found
        truth = f"**{_cell(labels[true])}**" if predicted != true else "the same"
        taken_for = f"{_cell(labels[predicted])} ({100 * confidence:.0f} %)"
        lines.append(f"| {taken_for} | {truth} | {_cell(text)} |")
    writer.add_text("texts", "\n".join(lines), step)


def _cell(text: str) -> str:
    """As it stands, whatever Markdown and HTML would make of it, on one line."""
    line = " ".join(text.split())
    short = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 2]}.."
    return re.sub(r"[^\w\s,.:]", lambda mark: f"&#{ord(mark[0])};", short)
