"""A sheet of images with what they were taken for, drawn with PIL."""

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from trainables.drawing import BLACK, LINE, LONGEST, WHITE, as_array, load_font, short
from trainables.showing import Predictions

IMAGES = 24
"""At most so many images are on a sheet."""
RED, GREEN = (190, 20, 20), (20, 120, 40)

_TILE = 120
"""Side of an image in a grid, in pixels."""
_COLUMNS = 6


def write_predictions(
    writer: Any, images: Tensor, predictions: Predictions, labels: Sequence[str], step: int
) -> None:
    """A picture of (n, 3, S, S) uint8 images, with the classes they were taken for and are."""
    taken_for, truth = (
        [labels[i] for i in classes.tolist()]
        for classes in (predictions.predicted, predictions.true)
    )
    sheet = draw_predictions(images, taken_for, truth, predictions.confidence.tolist())
    writer.add_image("predictions", as_array(sheet), step, dataformats="HWC")


def draw_predictions(
    images: Tensor, predicted: Sequence[str], true: Sequence[str], confidence: Sequence[float]
) -> Image.Image:
    """A grid of (N, 3, S, S) uint8 images, each above what it was taken for and what it is."""
    rows = -(-len(images) // _COLUMNS)
    height = _TILE + 2 * LINE + 8
    sheet = Image.new("RGB", (_COLUMNS * (_TILE + 8), rows * height), WHITE)
    draw = ImageDraw.Draw(sheet)
    font = load_font(12)
    for i, pixels in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        left, top = 4 + i % _COLUMNS * (_TILE + 8), 4 + i // _COLUMNS * height
        small = pixels.shape[0] < _TILE  # its pixels are then to be seen as they are
        resampling = Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR
        sheet.paste(Image.fromarray(pixels).resize((_TILE, _TILE), resampling), (left, top))
        right = predicted[i] == true[i]
        taken_for, truth = caption(predicted[i], true[i], confidence[i])
        draw.text((left, top + _TILE), taken_for, GREEN if right else RED, font)
        draw.text((left, top + _TILE + LINE), truth, BLACK, font)
    return sheet


def caption(predicted: str, true: str, confidence: float) -> tuple[str, str]:
    """Two lines: what an image was taken for and how surely, and what it is where that differs."""
    sure = f" ({100 * confidence:.0f} %)"
    taken_for = short(predicted, LONGEST - len(sure)) + sure
    return taken_for, "" if predicted == true else f"is {short(true, LONGEST - 3)}"
