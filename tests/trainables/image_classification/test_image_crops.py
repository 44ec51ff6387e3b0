import pytest
import torch
from torchvision.transforms import v2

from trainables.image_classification.crops import RandomCrop, RandomResizedCrop, resized_crop


def stripes(count: int, size: int) -> torch.Tensor:
    """The same image ``count`` times, no two pixels of it alike in the first two channels."""
    row = torch.arange(size, dtype=torch.uint8).expand(size, size)
    return torch.stack([row, row.T, row]).expand(count, 3, size, size)


def test_each_image_is_cropped_at_a_place_of_its_own():
    crops = RandomCrop(20)(stripes(64, 23))

    corners = {(int(crop[0, 0, 0]), int(crop[1, 0, 0])) for crop in crops}
    assert len(corners) > 8
    assert all(0 <= left <= 3 and 0 <= top <= 3 for left, top in corners)
    assert torch.equal(crops[:, 0] - crops[:, 0, :1, :1], stripes(64, 20)[:, 0])


def test_padding_widens_the_range_of_the_crop():
    crops = RandomCrop(8, padding=4)(torch.ones(64, 3, 8, 8))

    assert crops.shape == (64, 3, 8, 8)
    assert (crops.flatten(1).min(1).values == 0).any()


@pytest.mark.parametrize("side", [23, 61])
def test_parts_are_scaled_as_torchvision_scales_each(side: int):
    torch.manual_seed(0)
    images = torch.rand(3, 3, side, side)
    top, left, height, width = [0, 2, side - 9], [5, 0, 3], [side, 11, 9], [side - 5, side, 12]

    scaled = resized_crop(
        images,
        (torch.tensor(top).float(), torch.tensor(height).float()),
        (torch.tensor(left).float(), torch.tensor(width).float()),
        20,
    )

    for i, image in enumerate(images):
        part = (top[i], left[i], height[i], width[i])
        expected = v2.functional.resized_crop(image, *part, [20, 20], antialias=True)
        assert torch.allclose(scaled[i], expected, atol=1e-6)


def test_parts_are_drawn_as_torchvision_draws_them():
    torch.manual_seed(0)
    count, side = 4000, 100
    (top, height), (left, width) = RandomResizedCrop(64, 0.3).draw(count, side, torch.device("cpu"))

    theirs = v2.RandomResizedCrop(64, scale=(0.3, 1))
    image = torch.zeros(1, side, side)
    drawn = [theirs.make_params([image]) for _ in range(count)]

    ours = {"top": top, "left": left, "height": height, "width": width}
    for name, values in ours.items():
        expected = torch.tensor([float(params[name]) for params in drawn])
        steps = torch.arange(side + 1)[:, None]
        distance = ((values <= steps).float() - (expected <= steps).float()).mean(1).abs().max()
        assert distance < 0.044, name  # Kolmogorov-Smirnov, 1 in 1,000
    assert ((top + height <= side) & (left + width <= side)).all()


def test_a_share_of_one_is_the_whole_image():
    images = torch.rand(4, 3, 23, 23)

    scaled = RandomResizedCrop(20, 1.0)(images)

    expected = v2.functional.resize(images, [20, 20], antialias=True)
    assert torch.allclose(scaled, expected, atol=1e-6)


def test_each_image_is_cropped_and_resized_by_itself():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 23, 23)

    scaled = RandomResizedCrop(20, 0.3)(image.expand(16, -1, -1, -1))

    assert len({tuple(part.flatten().tolist()) for part in scaled}) == 16
