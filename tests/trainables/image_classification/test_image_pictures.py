import numpy as np
import pytest
import torch
from PIL import Image

from trainables.image_classification.pictures import (
    GREEN,
    RED,
    caption,
    class_colors,
    draw_confusion,
    draw_legend,
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


def test_a_confusion_matrix_is_shaded_by_the_share_of_its_row() -> None:
    sheet = draw_confusion(torch.tensor([[100, 0], [5, 5]]), ["cat", "dog"])

    side = sheet.width - 4
    cells = np.asarray(sheet)[side - 96 : side, side - 96 : side].reshape(2, 48, 2, 48, 3)
    corner = cells[:, 2, :, 2].sum(-1).tolist()  # beside the number
    (all_, none), (half, also_half) = corner
    assert none > half == also_half > all_


@pytest.mark.parametrize("classes", [2, 10, 50])
def test_many_classes_still_make_a_picture_of_a_screen(classes: int) -> None:
    labels = [f"golden retriever {i}" for i in range(classes)]
    sheet = draw_confusion(torch.eye(classes, dtype=torch.int64) * 1234, labels)
    assert sheet.width == sheet.height < 1200


def test_the_legend_has_the_color_of_every_class() -> None:
    colors = class_colors(20)
    assert len(set(colors)) == 20
    legend = draw_legend([str(i) for i in range(20)], colors)
    assert all(has(legend, color) for color in colors)
