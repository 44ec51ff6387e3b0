"""A list of texts with what they were taken for, as TensorBoard shows it."""

import re
from collections.abc import Sequence
from typing import Any

from trainables.showing import Predictions

TEXTS = 24
"""At most so many texts are in a list."""
_LONGEST = 400
"""Characters of a text."""


def write_mistakes(
    writer: Any, texts: Sequence[str], predictions: Predictions, labels: Sequence[str], step: int
) -> None:
    """Write a Markdown list of ``texts``, mistakes first, as ``predictions`` has them."""
    lines = []
    columns = predictions.predicted, predictions.true, predictions.confidence
    for text, *found in zip(texts, *(column.tolist() for column in columns), strict=True):
        predicted, true, confidence = found
        taken_for = f"taken for **{_literal(labels[predicted])}** " if predicted != true else ""
        sure = f"({100 * confidence:.0f} %)"
        lines.append(f"- **{_literal(labels[true])}** {taken_for}{sure}: {_literal(text)}")
    writer.add_text("texts", "\n".join(lines), step)


def _literal(text: str) -> str:
    """As it stands, whatever Markdown and HTML would make of it, on one line."""
    line = " ".join(text.split())
    short = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 2]}.."
    return re.sub(r"[^\w\s,.:]|_", lambda mark: f"&#{ord(mark[0])};", short)
