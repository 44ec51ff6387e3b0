"""Trainables: what a trial runs. A user writes a :class:`Task`; the rest makes it distributed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.task import Context, Task

__all__ = ["DEFAULT_TRAINABLE", "TRAINABLES", "Context", "Task"]

TRAINABLES: dict[str, str] = {
    "image_classification": "trainables.image_classification:ImageClassification",
    "text_classification": "trainables.text_classification:TextClassification",
}
"""Built-in name -> the Task's import path."""

DEFAULT_TRAINABLE = "image_classification"
"""What an experiment runs that names none."""


def __getattr__(name: str) -> Any:
    """Import torch only when a Task or Context is asked for."""
    if name in ("Context", "Task"):
        return getattr(import_module("trainables.task"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
