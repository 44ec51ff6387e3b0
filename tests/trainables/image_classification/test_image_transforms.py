import pytest
import torch
from torchvision.transforms import v2

from trainables.image_classification import transforms
from trainables.image_classification.config import Settings

GREY = (0.5, 0.5, 0.5)


def stripes(count: int, size: int) -> torch.Tensor:
    """The same image ``count`` times, no two pixels of it alike in the first two channels."""
    row = torch.arange(size, dtype=torch.uint8).expand(size, size)
    return torch.stack([row, row.T, row]).expand(count, 3, size, size)


def test_each_image_is_cropped_at_a_place_of_its_own():
    crops = transforms.RandomCrop(20)(stripes(64, 23))

    corners = {(int(crop[0, 0, 0]), int(crop[1, 0, 0])) for crop in crops}
    assert len(corners) > 8
    assert all(0 <= left <= 3 and 0 <= top <= 3 for left, top in corners)
    assert torch.equal(crops[:, 0] - crops[:, 0, :1, :1], stripes(64, 20)[:, 0])


def test_padding_widens_the_range_of_the_crop():
    crops = transforms.RandomCrop(8, padding=4)(torch.ones(64, 3, 8, 8))

    assert crops.shape == (64, 3, 8, 8)
    assert (crops.flatten(1).min(1).values == 0).any()


def test_each_image_is_flipped_or_not_by_itself():
    images = stripes(64, 8)

    flipped = transforms.RandomFlip(v2.functional.horizontal_flip, 0.5)(images)

    mirrored = [torch.equal(image, images[0].flip(-1)) for image in flipped]
    kept = [torch.equal(image, images[0]) for image in flipped]
    assert sum(mirrored) + sum(kept) == 64
    assert min(sum(mirrored), sum(kept)) > 10


def test_each_image_is_rotated_by_an_angle_of_its_own_within_the_limit():
    image = torch.zeros(1, 1, 41, 41)
    image[0, 0, 20, 30:] = 1  # a ray from the centre to the right

    turned = transforms.RandomRotation(30)(image.expand(64, -1, -1, -1))

    rows, columns = torch.meshgrid(torch.arange(-20, 21), torch.arange(-20, 21), indexing="ij")
    weight = turned[:, 0]
    angles = torch.atan2((weight * rows).sum((1, 2)), (weight * columns).sum((1, 2))).rad2deg()
    assert angles.min() < -10
    assert angles.max() > 10
    assert angles.abs().max() < 31


def test_training_without_chance_is_evaluation():
    settings = Settings(data="digits", image_size=20, random_crop=False)
    images = stripes(3, 23)

    assert torch.equal(
        transforms.training(settings, GREY, GREY)(images),
        transforms.evaluation(20, GREY, GREY)(images),
    )


@pytest.mark.parametrize("random_crop", [True, False])
def test_all_transforms_together_give_normalised_images_of_the_size_asked_for(random_crop: bool):
    settings = Settings(
        data="digits",
        image_size=20,
        random_crop=random_crop,
        crop_padding=2,
        rotation=15,
        horizontal_flip=0.5,
        vertical_flip=0.5,
    )
    white = torch.full((4, 3, 23, 23), 255, dtype=torch.uint8)

    images = transforms.training(settings, GREY, GREY)(white)

    assert images.shape == (4, 3, 20, 20)
    assert torch.allclose(images.max(), torch.tensor(1.0))
    assert images.min() >= -1
