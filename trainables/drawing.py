"""Drawn with PIL: a confusion matrix, a legend, and what captions and they share."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Color = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

LINE = 14
"""Height of a line of text, in pixels."""
LONGEST = 18
"""Characters of a label."""


def draw_confusion(counts: Tensor, labels: Sequence[str]) -> Image.Image:
    """A (true, predicted) matrix of counts, shaded by each one's share of its row."""
    classes = len(labels)
    cell = max(20, min(48, 960 // classes))
    font, small = load_font(12), load_font(max(8, cell // 4))
    names = [short(label) for label in labels]
    margin = 12 + max(int(font.getlength(name)) for name in names)
    top = margin + LINE
    sheet = Image.new("RGB", (top + classes * cell + 4, top + classes * cell + 4), WHITE)
    draw = ImageDraw.Draw(sheet)
    shares = (counts / counts.sum(1, keepdim=True).clamp(min=1)).tolist()
    for row, of_row in enumerate(counts.tolist()):
        for column, count in enumerate(of_row):
            share = shares[row][column]
            left, upper = top + column * cell, top + row * cell
            box = (left, upper, left + cell - 2, upper + cell - 2)
            draw.rectangle(box, _shade(share))
            if count:
                middle = (left + cell // 2 - 1, upper + cell // 2 - 1)
                draw.text(middle, str(count), WHITE if share > 0.5 else BLACK, small, "mm")
    for i, name in enumerate(names):
        place = top + i * cell + cell // 2 - 1
        draw.text((top - 5, place), name, BLACK, font, "rm")
        upright = _upright(name, font)
        sheet.paste(upright, (place - upright.width // 2, top - 5 - upright.height))
    draw.text((2, 2), "true (rows) against predicted", BLACK, font)
    return sheet


def draw_legend(labels: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    """A line for each class: its color and its name."""
    font = load_font(12)
    names = [short(label) for label in labels]
    width = 32 + max(int(font.getlength(name)) for name in names)
    sheet = Image.new("RGB", (width, len(names) * 20 + 4), WHITE)
    draw = ImageDraw.Draw(sheet)
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        draw.rectangle((4, 4 + 20 * i, 20, 20 + 20 * i), color)
        draw.text((26, 12 + 20 * i), name, BLACK, font, "lm")
    return sheet


def class_colors(classes: int) -> list[Color]:
    """Hues evenly around the circle, of neighbours one lighter than the other."""
    colors = []
    for i in range(classes):
        channels = colorsys.hsv_to_rgb(i / classes, 0.9, 0.95 if i % 2 else 0.65)
        red, green, blue = (round(255 * channel) for channel in channels)
        colors.append((red, green, blue))
    return colors


def as_array(image: Image.Image) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """(H, W, 3) uint8."""
    return np.asarray(image).reshape(image.height, image.width, 3)


def load_font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Letters of ``size`` pixels."""
    return ImageFont.load_default(size)


def short(text: str, most: int = LONGEST) -> str:
    """The text, or its beginning, in ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 2]}.."


def _shade(share: float) -> Color:
    """From nearly white to dark blue."""
    red, green, blue = (
        round(light + share * (dark - light))
        for light, dark in zip((240, 244, 250), (8, 48, 107), strict=True)
    )
    return red, green, blue


def _upright(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Image.Image:
    """The text read from below, as narrow as it can be."""
    line = Image.new("RGB", (max(1, int(font.getlength(text)) + 1), LINE), WHITE)
    ImageDraw.Draw(line).text((0, LINE // 2), text, BLACK, font, "lm")
    return line.transpose(Image.Transpose.ROTATE_90)
