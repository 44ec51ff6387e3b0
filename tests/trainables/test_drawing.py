import numpy as np
import pytest
import torch
from PIL import Image

from trainables.drawing import class_colors, draw_confusion, draw_legend


def has(image: Image.Image, color: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == color).all(-1).any())


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
