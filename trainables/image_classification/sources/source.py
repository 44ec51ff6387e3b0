from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from trainables.labelled import Labelled


@dataclass(frozen=True)
class Source(Labelled):
    """A number of images with their classes. A row is an index into ``names`` too."""

    unit = "images"
    names: list[str]
    read: Callable[[int, int], Image.Image]
    """Decodes a row to RGB, for a square of the second argument's side; see ``read_image``.

    ValueError: it is no image. OSError: it cannot be read. It can be pickled.
    """
