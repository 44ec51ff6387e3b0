from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from trainables.image_classification import transforms
from trainables.image_classification.config import Settings
from trainables.task import Context

GREY = (0.5, 0.5, 0.5)


def stripes(count: int, size: int) -> torch.Tensor:
    """The same image ``count`` times, no two pixels of it alike in the first two channels."""
    row = torch.arange(size, dtype=torch.uint8).expand(size, size)
    return torch.stack([row, row.T, row]).expand(count, 3, size, size)


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


EVERYTHING: dict[str, Any] = {
    "data": "digits",
    "image_size": 20,
    "resized_crop": 0.5,
    "rotation": 15,
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "color_jitter": 0.4,
    "hue_jitter": 0.1,
    "auto_augment": "randaugment",
    "mixup": 0.2,
    "cutmix": 1.0,
}


@pytest.fixture
def _own_transforms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")


@pytest.mark.parametrize("auto_augment", ["none", "randaugment", "trivialaugment"])
@pytest.mark.parametrize(
    "crop",
    [
        {"resized_crop": 0.3},
        {"resized_crop": None, "crop_padding": 2},
        {"resized_crop": None, "random_crop": False},
    ],
)
def test_all_transforms_together_give_normalised_images_of_the_size_asked_for(
    crop: dict[str, Any], auto_augment: str
):
    settings = Settings(**(EVERYTHING | crop | {"auto_augment": auto_augment}))
    noise = torch.randint(0, 256, (16, 3, 23, 23), dtype=torch.uint8)

    images = transforms.training(settings, GREY, GREY)(noise)

    assert images.shape == (16, 3, 20, 20)
    assert images.dtype == torch.float32
    assert -1 <= images.min() < -0.5
    assert 0.5 < images.max() <= 1 + 1e-5


@pytest.mark.parametrize("transform", [None, "own_transforms:flips"])
@pytest.mark.usefixtures("_own_transforms")
def test_a_seed_repeats_all_that_is_drawn_and_another_draws_anew(transform: str | None):
    settings = Settings(**EVERYTHING, transforms=transform)
    augment = transforms.training(settings, GREY, GREY)
    mix = transforms.mixing(settings, 10)
    assert mix is not None
    noise = torch.randint(0, 256, (8, 3, 23, 23), dtype=torch.uint8)

    def draw(rank: int, epoch: int) -> torch.Tensor:
        Context(rank=rank, world_size=2, seed=3).start_epoch(epoch)
        batches = [mix(augment(noise), torch.arange(8)) for _ in range(2)]
        return torch.stack([images for images, _ in batches])

    first = draw(0, 0)
    assert torch.equal(draw(0, 0), first)
    assert not torch.equal(draw(1, 0), first)
    assert not torch.equal(draw(0, 1), first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.usefixtures("_own_transforms")
def test_the_users_own_transforms_come_first():
    settings = Settings(
        data="digits", image_size=20, random_crop=False, transforms="own_transforms:mirrored"
    )
    images = stripes(3, 23)

    changed = transforms.training(settings, GREY, GREY)(images)

    assert torch.equal(changed, transforms.evaluation(20, GREY, GREY)(images.flip(-1)))


@pytest.mark.usefixtures("_own_transforms")
def test_own_transforms_are_checked_before_a_run():
    transforms.check_transforms(Settings(data="digits"))
    transforms.check_transforms(Settings(data="digits", transforms="own_transforms:flips"))
    with pytest.raises(ValueError, match="transforms is 'own_transforms:none_such'"):
        transforms.check_transforms(Settings(data="digits", transforms="own_transforms:none_such"))


def test_images_are_normalised_as_torchvision_does_it():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = torch.rand(2, 3, 8, 8)

    expected = v2.functional.normalize(images, list(mean), list(std))
    assert torch.equal(transforms.Normalize(mean, std)(images), expected)
    assert torch.equal(transforms.Normalize(mean, std)(images[0]), expected[0])


def mixer(**settings: Any) -> nn.Module:
    module = transforms.mixing(Settings(data="digits", **settings), 5)
    assert module is not None
    return module


def shares(weight: torch.Tensor) -> torch.Tensor:
    """Of images of the classes 0 to 3, each mixed with the one before it."""
    own = torch.eye(5)[:4]
    return weight * own + (1 - weight) * own.roll(1, 0)


def test_mixup_blends_neighbours_and_their_classes_by_the_same_share():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 6, 6)

    mixed, targets = mixer(mixup=1.0)(images, torch.arange(4))

    weight = targets[1, 1]
    assert 0 < weight < 1
    assert torch.allclose(targets, shares(weight))
    assert torch.allclose(mixed, weight * images + (1 - weight) * images.roll(1, 0))


def test_cutmix_swaps_a_box_and_weighs_classes_by_its_area():
    torch.manual_seed(0)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 12, 12)

    mixed, targets = mixer(cutmix=1.0)(images, torch.arange(4))

    swapped = (mixed != images).float().mean((1, 2, 3))
    assert 0 < swapped[0] < 1
    assert torch.allclose(targets, shares(1 - swapped[0]))


def test_with_both_each_batch_gets_one_with_equal_chance():
    torch.manual_seed(0)
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 64, 64)
    mix = mixer(mixup=1.0, cutmix=1.0)

    batches = [mix(images, torch.arange(2))[0] for _ in range(200)]

    blended = sum(bool(((batch > 0) & (batch < 1)).any()) for batch in batches)
    assert 70 < blended < 130


def test_nothing_is_mixed_unless_asked_for():
    assert transforms.mixing(Settings(data="digits"), 5) is None
    assert not transforms.mixes(Settings(data="digits"))
    assert transforms.mixes(Settings(data="digits", mixup=0.2))
    assert transforms.mixes(Settings(data="digits", cutmix=0.2))


RANDOM: list[dict[str, Any]] = [
    {"random_crop": True},
    {"resized_crop": 0.5},
    {"rotation": 5},
    {"horizontal_flip": 0.5},
    {"vertical_flip": 0.5},
    {"color_jitter": 0.1},
    {"hue_jitter": 0.1},
    {"auto_augment": "randaugment"},
    {"auto_augment": "trivialaugment"},
    {"transforms": "own_transforms:noisy"},
]


@pytest.mark.parametrize("setting", RANDOM, ids=str)
@pytest.mark.usefixtures("_own_transforms")
def test_each_random_transform_is_known_to_be_one_and_changes_the_key(setting: dict[str, Any]):
    still: dict[str, Any] = {"data": "digits", "image_size": 20, "random_crop": False}
    settings = Settings(**(still | setting))
    noise = torch.randint(0, 256, (16, 3, 23, 23), dtype=torch.uint8)
    augment = transforms.training(settings, GREY, GREY)

    assert transforms.is_random(settings)
    assert not torch.equal(augment(noise), augment(noise))
    assert not transforms.is_random(Settings(**still))
    assert transforms.preprocessing_key(settings) != transforms.preprocessing_key(Settings(**still))


@pytest.mark.parametrize(
    ("fixed", "unread"),
    [
        ({}, {"randaugment_ops": 3}),
        ({}, {"mixup": 0.2}),
        ({}, {"learning_rate": 0.1}),
        ({"auto_augment": "trivialaugment"}, {"randaugment_magnitude": 3}),
        ({"resized_crop": 0.5}, {"random_crop": False}),
        ({"resized_crop": 0.5}, {"crop_padding": 2}),
        ({"random_crop": False}, {"crop_padding": 2}),
    ],
)
def test_what_is_not_read_is_not_in_the_key(fixed: dict[str, Any], unread: dict[str, Any]):
    with_it = Settings(data="digits", **fixed, **unread)
    without = Settings(data="digits", **fixed)

    assert transforms.preprocessing_key(with_it) == transforms.preprocessing_key(without)


@pytest.mark.parametrize(
    ("fixed", "read"),
    [
        ({}, {"image_size": 64}),
        ({}, {"random_crop": False}),
        ({}, {"crop_padding": 2}),
        ({"auto_augment": "randaugment"}, {"randaugment_ops": 3}),
        ({"auto_augment": "randaugment"}, {"randaugment_magnitude": 3}),
        ({"transforms": "own_transforms:noisy"}, {"learning_rate": 0.1}),
    ],
)
@pytest.mark.usefixtures("_own_transforms")
def test_what_is_read_is_in_the_key(fixed: dict[str, Any], read: dict[str, Any]):
    with_it = Settings(data="digits", **fixed, **read)
    without = Settings(data="digits", **fixed)

    assert transforms.preprocessing_key(with_it) != transforms.preprocessing_key(without)


def test_the_key_is_plain():
    assert transforms.preprocessing_key(Settings(data="digits")) == {
        "image_size": 224,
        "random_crop": True,
        "crop_padding": 0,
        "resized_crop": None,
        "rotation": 0.0,
        "horizontal_flip": 0.0,
        "vertical_flip": 0.0,
        "color_jitter": 0.0,
        "hue_jitter": 0.0,
        "auto_augment": "none",
    }


@pytest.mark.parametrize("auto_augment", ["randaugment", "trivialaugment"])
@pytest.mark.parametrize("resized_crop", [None, 0.5])
def test_nothing_is_mixed_with_tensors_of_another_device(
    auto_augment: str, resized_crop: float | None
):
    chosen = {"auto_augment": auto_augment, "resized_crop": resized_crop}
    settings = Settings(**(EVERYTHING | chosen))
    noise = torch.empty(16, 3, 23, 23, dtype=torch.uint8, device="meta")  # a device without values

    images = transforms.training(settings, GREY, GREY)(noise)
    mixed, targets = mixer(mixup=1.0)(images, torch.empty(16, dtype=torch.int64, device="meta"))

    assert images.device.type == mixed.device.type == targets.device.type == "meta"
    assert images.shape == mixed.shape == (16, 3, 20, 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("auto_augment", ["randaugment", "trivialaugment"])
@pytest.mark.parametrize("resized_crop", [None, 0.5])
def test_on_a_gpu_all_is_done_there_and_nothing_waits_for_it(
    auto_augment: str, resized_crop: float | None
):
    chosen = {"auto_augment": auto_augment, "resized_crop": resized_crop}
    augment = transforms.training(Settings(**(EVERYTHING | chosen)), GREY, GREY)
    noise = torch.randint(0, 256, (16, 3, 23, 23), dtype=torch.uint8, device="cuda")
    augment(noise)  # cuBLAS is set up

    torch.cuda.set_sync_debug_mode("error")
    try:
        images = augment(noise)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert images.is_cuda
    assert images.shape == (16, 3, 20, 20)
