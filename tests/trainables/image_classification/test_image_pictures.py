import numpy as np
import pytest
import torch
from PIL import Image

from trainables.image_classification.pictures import (
    GREEN,
    RED,
    caption,
    draw_predictions,
)


def has(image: Image.Image, color: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == color).all(-1).any())


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ("cat", "dog", ("cat (97 %)", "is dog")),
        ("cat", "cat", ("cat (97 %)", "")),
        ("a very long name of a breed", "dog", ("a very lo.. (97 %)", "is dog")),
    ],
)
def test_a_caption_says_what_it_was_taken_for_and_what_it_is(
    predicted: str, true: str, expected: tuple[str, str]
) -> None:
    assert caption(predicted, true, 0.974) == expected


def test_each_image_is_in_its_place_and_mistakes_are_red() -> None:
    shades = torch.tensor([40, 80, 120, 160, 200, 220, 240], dtype=torch.uint8)
    images = shades.view(7, 1, 1, 1).expand(7, 3, 48, 48)

    sheet = draw_predictions(images, ["a"] * 7, ["a"] * 6 + ["b"], [0.5] * 7)

    pixels = np.asarray(sheet)
    tile = sheet.width // 6
    first_row = [pixels[60, 60 + i * tile].tolist() for i in range(6)]
    assert first_row == [[shade] * 3 for shade in shades[:6].tolist()]
    assert pixels[sheet.height // 2 + 60, 60].tolist() == [240] * 3
    top, bottom = (
        sheet.crop((0, y, sheet.width, y + sheet.height // 2)) for y in (0, sheet.height // 2)
    )
    assert (has(top, GREEN), has(top, RED)) == (True, False)
    assert (has(bottom, GREEN), has(bottom, RED)) == (False, True)
