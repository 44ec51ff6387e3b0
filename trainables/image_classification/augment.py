"""Random changes of colour and shape: ColorJitter, RandAugment and TrivialAugment, image by image.

They do to one image what ``torchvision.transforms.v2`` does to it. Its functions take one strength
a call, and those that move pixels make a GPU wait while they copy it there; here a strength is a
tensor, one an image, so that a batch takes a few kernels, whatever was drawn for its images.

All images are (N, 3, H, W) floats from 0 to 1, and H = W where pixels move.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

_STRENGTHS = 31
"""Steps of a strength in RandAugment and TrivialAugment."""


class ColorJitter(nn.Module):
    """Change each image's brightness, contrast, saturation and hue by amounts of its own."""

    def __init__(self, color: float, hue: float) -> None:
        super().__init__()
        self.color = color
        self.hue = hue

    def forward(self, images: Tensor) -> Tensor:
        """Draw factors from 1 - color to 1 + color, and turns of hue from -hue to hue."""
        if self.color:
            for adjust in (adjust_brightness, adjust_contrast, adjust_saturation):
                images = adjust(images, 1 + self.color * _either_way(images))
        return turn_hue(images, self.hue * _either_way(images)) if self.hue else images


class RandomOperations(nn.Module):
    """Apply ``count`` operations to each image, drawn evenly and for each image by itself.

    Args:
        space: torchvision's table of operations: of each, a function from the number of strengths
            and the size to the strengths (None: it has none), and whether a sign is drawn too.
        size: side of the images, in pixels.
        count: operations an image.
        strength: the step of all strengths, from 0 to 30; None: drawn evenly.

    """

    def __init__(
        self,
        space: dict[str, tuple[Callable[[int, int, int], Tensor | None], bool]],
        size: int,
        count: int = 1,
        strength: int | None = None,
    ) -> None:
        super().__init__()
        self.count = count
        self.strength = strength
        self.operations = [OPERATIONS[name] for name in space]
        rows = [strengths(_STRENGTHS, size, size) for strengths, _ in space.values()]
        none = torch.zeros(_STRENGTHS)
        self.strengths = torch.stack([none if row is None else row.float() for row in rows])
        self.signed = torch.tensor([signed for _, signed in space.values()])

    def forward(self, images: Tensor) -> Tensor:
        """Apply them one after another."""
        for _ in range(self.count):
            images = self._apply_one_each(images)
        return images

    def _apply_one_each(self, images: Tensor) -> Tensor:
        """Sort the images by operation, so that each operation runs once, on a slice."""
        operation, strength = self._draw(len(images))
        order = operation.argsort()
        sizes = operation.bincount(minlength=len(self.operations)).tolist()
        rows = _to(images.device, order)
        slices = zip(
            self.operations,
            images[rows].split_with_sizes(sizes),
            _to(images.device, strength[order]).split_with_sizes(sizes),
            strict=True,
        )
        done = [apply(some, own) for apply, some, own in slices if len(some)]
        result = torch.empty_like(images)
        result[rows] = torch.cat(done)
        return result

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        """An operation and a strength for each image, on the CPU: it decides what is launched."""
        operation = torch.randint(len(self.operations), (count,))
        step = torch.randint(_STRENGTHS, (count,)) if self.strength is None else self.strength
        strength = self.strengths[operation, step]
        negative = self.signed[operation] & (torch.rand(count) < 0.5)
        return operation, torch.where(negative, -strength, strength)


def randaugment(size: int, count: int, strength: int) -> RandomOperations:
    """RandAugment (arXiv 1909.13719) with torchvision's operations and strengths."""
    return RandomOperations(v2.RandAugment._AUGMENTATION_SPACE, size, count, strength)  # noqa: SLF001


def trivialaugment(size: int) -> RandomOperations:
    """TrivialAugment's wide space (arXiv 2103.10158), as torchvision has it."""
    return RandomOperations(v2.TrivialAugmentWide._AUGMENTATION_SPACE, size)  # noqa: SLF001


def warp(images: Tensor, entries: dict[tuple[int, int], Tensor]) -> Tensor:
    """Move pixels, bilinearly; what comes into view is black.

    ``entries`` (each (N,), by row and column) replace those of the (2, 3) identity that leads from
    a place in the result to one in the image, both from -1 to 1 across it.
    """
    matrix = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for (row, column), values in entries.items():
        matrix[:, row, column] = values
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre by its own of (N,) ``degrees``."""
    angle = degrees.deg2rad()
    cos, sin = angle.cos(), angle.sin()
    return warp(images, {(0, 0): cos, (0, 1): -sin, (1, 0): sin, (1, 1): cos})


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; here and below, the (N,) factors are 0 for all of it and 1 for none."""
    return _blend(images, torch.zeros_like(images[:, :, :1, :1]), factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey of the image."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in grey."""
    return _blend(images, _grey(images), factor)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image blurred, all but its outermost pixels."""
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    blurred = images.clone()
    # The kernel of torchvision and Pillow: 5 in the middle of eight times 1.
    blurred[..., 1:-1, 1:-1] = (around + 4 * images[..., 1:-1, 1:-1]) / 13
    return _blend(images, blurred, factor)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by (N,) shares of the circle; HSV's saturation and value stay."""
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp(min=1e-8)  # grey has no hue, and gets none: chroma is 0 below
    sixths = torch.where(
        red == value,
        (green - blue) / divisor,
        torch.where(green == value, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths += 6 * turn.view(-1, 1, 1)

    def channel(offset: int) -> Tensor:
        """Its distance from the hue where it is lowest, cut off at both ends."""
        distance = (sixths + offset).remainder_(6).sub_(2).abs_()
        return value - chroma * (2 - distance).clamp_(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the first (N,) ``bits`` of 8 of each brightness."""
    levels = _each(2**bits)
    return torch.minimum((images * levels).floor(), levels - 1) / levels


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is as bright as the image's own of (N,) thresholds, or brighter."""
    return torch.where(images >= _each(threshold), 1 - images, images)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "Identity": lambda images, _: images,
    "ShearX": lambda images, shear: warp(images, {(0, 1): shear, (0, 2): shear}),
    "ShearY": lambda images, shear: warp(images, {(1, 0): shear, (1, 2): shear}),
    "TranslateX": lambda images, pixels: warp(
        images, {(0, 2): -2 * pixels.trunc() / images.shape[3]}
    ),
    "TranslateY": lambda images, pixels: warp(
        images, {(1, 2): -2 * pixels.trunc() / images.shape[2]}
    ),
    "Rotate": rotate,
    "Brightness": lambda images, change: adjust_brightness(images, 1 + change),
    "Color": lambda images, change: adjust_saturation(images, 1 + change),
    "Contrast": lambda images, change: adjust_contrast(images, 1 + change),
    "Sharpness": lambda images, change: adjust_sharpness(images, 1 + change),
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": lambda images, _: v2.functional.autocontrast(images),
    "Equalize": lambda images, _: v2.functional.equalize(images),
}
"""By torchvision's names: from images and a strength for each, in torchvision's units."""


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, _each(factor)).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    return cast(Tensor, v2.functional.rgb_to_grayscale(images))


def _either_way(images: Tensor) -> Tensor:
    """A number from -1 to 1 for each image."""
    return 2 * torch.rand(len(images), device=images.device) - 1


def _each(values: Tensor) -> Tensor:
    """Shape (N,) values so that each meets the image of its own."""
    return values.view(-1, 1, 1, 1)


def _to(device: torch.device, values: Tensor) -> Tensor:
    """Copy to the device; a GPU need not wait for what comes from pinned memory."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)
