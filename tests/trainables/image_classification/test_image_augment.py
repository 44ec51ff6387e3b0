from collections import Counter

import pytest
import torch
from torchvision.transforms import v2

from trainables.image_classification import augment

BILINEAR = v2.InterpolationMode.BILINEAR
POLICIES = {
    "randaugment": v2.RandAugment(interpolation=BILINEAR),
    "trivialaugment": v2.TrivialAugmentWide(interpolation=BILINEAR),
}
SIZE = 24


@pytest.fixture
def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(5, 3, SIZE, SIZE)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_operation_of_torchvision_is_there(policy: str):
    assert set(POLICIES[policy]._AUGMENTATION_SPACE) <= set(augment.OPERATIONS)


@pytest.mark.parametrize("name", augment.OPERATIONS)
@pytest.mark.parametrize("policy", POLICIES)
def test_an_operation_does_to_each_image_what_torchvision_does(
    policy: str, name: str, images: torch.Tensor
):
    theirs = POLICIES[policy]
    strengths, signed = theirs._AUGMENTATION_SPACE[name]
    steps = strengths(31, SIZE, SIZE)
    five = [0.0] * 5 if steps is None else steps[[0, 3, 9, 20, 30]].tolist()

    for sign in (1, -1) if signed else (1,):
        values = [sign * value for value in five]
        changed = augment.OPERATIONS[name](images, torch.tensor(values, dtype=torch.float32))

        for image, own, value in zip(images, changed, values, strict=True):
            expected = theirs._apply_image_or_video_transform(
                image, name, value, theirs.interpolation, theirs._fill
            )
            assert torch.allclose(own, expected, atol=2e-5)


def test_hue_turns_as_torchvision_turns_it(images: torch.Tensor):
    images[0] = 0.5  # grey has no hue
    images[1, :, :, :12] = torch.tensor([0.0, 1.0, 1.0])[:, None, None]
    turns = [0.3, -0.5, 0.0, 0.5, -0.1]

    turned = augment.turn_hue(images, torch.tensor(turns))

    for image, own, turn in zip(images, turned, turns, strict=True):
        assert torch.allclose(own, v2.functional.adjust_hue(image, turn), atol=1e-5)


def test_jitter_keeps_to_its_limits_and_differs_by_image():
    torch.manual_seed(0)
    images = torch.full((256, 3, 4, 4), 0.4)  # grey: contrast, saturation and hue do nothing

    brightness = augment.ColorJitter(0.5, 0.25)(images)[:, 0, 0, 0] / 0.4

    assert 0.5 <= brightness.min() < 0.55
    assert 1.45 < brightness.max() <= 1.5


def test_jitter_of_hue_keeps_to_its_limit():
    torch.manual_seed(0)
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(256, 3, 4, 4)

    jittered = augment.ColorJitter(0.0, 1 / 12)(red)[:, :, 0, 0]

    assert torch.equal(jittered[:, 0], torch.ones(256))
    green, blue = jittered[:, 1].max(), jittered[:, 2].max()  # a twelfth is half way to yellow
    assert 0.45 < green <= 0.501
    assert 0.45 < blue <= 0.501


def test_jitter_applies_torchvisions_changes_in_a_fixed_order(
    monkeypatch: pytest.MonkeyPatch, images: torch.Tensor
):
    drawn = [torch.full((5,), 0.5), torch.full((5,), -0.25), torch.full((5,), 1.0)]
    left = iter([*drawn, torch.full((5,), 0.5)])
    monkeypatch.setattr(augment, "_either_way", lambda _: next(left))

    jittered = augment.ColorJitter(0.4, 0.2)(images)

    expected = v2.functional.adjust_brightness(images, 1.2)
    expected = torch.stack([v2.functional.adjust_contrast(image, 0.9) for image in expected])
    expected = v2.functional.adjust_saturation(expected, 1.4)
    expected = v2.functional.adjust_hue(expected, 0.1)
    assert torch.allclose(jittered, expected, atol=1e-5)


@pytest.mark.parametrize("strength", [0, 9, 30])
def test_randaugment_draws_torchvisions_operations_evenly_at_one_strength(strength: int):
    torch.manual_seed(0)
    space = POLICIES["randaugment"]._AUGMENTATION_SPACE
    module = augment.randaugment(SIZE, 2, strength)

    operations, strengths = module._draw(14_000)

    names = list(space)
    counts = Counter(names[i] for i in operations.tolist())
    assert counts.keys() == space.keys()
    assert 850 < min(counts.values()) <= max(counts.values()) < 1150  # 1,000, 5 deviations
    for i, (steps, signed) in enumerate(space.values()):
        row = steps(31, SIZE, SIZE)
        value = 0.0 if row is None else float(row[strength])
        expected = {value, -value} if signed else {value}
        assert set(strengths[operations == i].tolist()) == expected


def test_trivialaugment_draws_every_strength():
    torch.manual_seed(0)

    operations, strengths = augment.trivialaugment(SIZE)._draw(14_000)

    rotations = strengths[
        operations == list(v2.TrivialAugmentWide._AUGMENTATION_SPACE).index("Rotate")
    ]
    assert len(set(rotations.tolist())) == 61  # 30 either way, and none
    assert rotations.min() == -135
    assert rotations.max() == 135


@pytest.mark.parametrize("count", [1, 3])
def test_each_image_gets_the_operations_drawn_for_it(
    count: int, monkeypatch: pytest.MonkeyPatch, images: torch.Tensor
):
    names = list(POLICIES["randaugment"]._AUGMENTATION_SPACE)
    mixed = ["Solarize", "Rotate", "Identity", "Solarize", "Brightness"]
    drawn = torch.tensor([names.index(name) for name in mixed])
    strengths = torch.tensor([0.5, -20.0, 0.0, 0.25, 0.3])
    module = augment.randaugment(SIZE, count, 9)
    monkeypatch.setattr(module, "_draw", lambda _: (drawn, strengths))

    changed = module(images)

    for i, name in enumerate(mixed):
        alone = images[i : i + 1]
        for _ in range(count):
            alone = augment.OPERATIONS[name](alone, strengths[i : i + 1])
        assert torch.allclose(changed[i : i + 1], alone, atol=1e-6)
