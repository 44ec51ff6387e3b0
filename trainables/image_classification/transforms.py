"""Transforms of whole batches, on the batch's device, with a draw of its own for every image.

The transforms of ``torchvision.transforms.v2`` draw once a call: on a batch, every image would be
turned by the same angle. What draws nothing is used from there.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from trainables.image_classification.config import Settings

Channels = tuple[float, float, float]
"""One number each for red, green and blue, in units of the full brightness."""


class RandomCrop(nn.Module):
    """Cut (N, C, size, size) out of (N, C, H, W), each image at a place of its own."""

    def __init__(self, size: int, padding: int = 0) -> None:
        super().__init__()
        self.size = size
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        """Pad with black, then crop."""
        images = functional.pad(images, [self.padding] * 4)
        rows = self._places(images.shape[2], images)[:, :, None]
        columns = self._places(images.shape[3], images)[:, None, :]
        every = torch.arange(len(images), device=images.device)[:, None, None]
        return images.permute(0, 2, 3, 1)[every, rows, columns].permute(0, 3, 1, 2)

    def _places(self, length: int, images: Tensor) -> Tensor:
        start = torch.randint(length - self.size + 1, (len(images), 1), device=images.device)
        return start + torch.arange(self.size, device=images.device)


class RandomRotation(nn.Module):
    """Turn each of (N, C, S, S) float images about its centre; what comes into view is black."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.radians = math.radians(degrees)

    def forward(self, images: Tensor) -> Tensor:
        """Rotate by angles drawn evenly between -degrees and +degrees."""
        angle = self.radians * (2 * torch.rand(len(images), device=images.device) - 1)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        matrix = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
        grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)


class RandomFlip(nn.Module):
    """Mirror each of (N, C, H, W) images with the given probability."""

    def __init__(self, flip: Callable[[Tensor], Tensor], probability: float) -> None:
        super().__init__()
        self.flip = flip
        self.probability = probability

    def forward(self, images: Tensor) -> Tensor:
        """Flip those drawn."""
        drawn = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
        return torch.where(drawn, self.flip(images), images)


def training(settings: Settings, mean: Channels, std: Channels) -> nn.Module:
    """From stored (N, 3, S, S) uint8 images to normalised (N, 3, image_size, image_size) floats."""
    steps: list[nn.Module] = [v2.ToDtype(torch.float32, scale=True)]
    if settings.rotation:
        steps.append(RandomRotation(settings.rotation))
    if settings.random_crop:
        steps.append(RandomCrop(settings.image_size, settings.crop_padding))
    else:
        steps.append(v2.CenterCrop(settings.image_size))
    if settings.horizontal_flip:
        steps.append(RandomFlip(v2.functional.horizontal_flip, settings.horizontal_flip))
    if settings.vertical_flip:
        steps.append(RandomFlip(v2.functional.vertical_flip, settings.vertical_flip))
    return nn.Sequential(*steps, v2.Normalize(list(mean), list(std)))


def evaluation(image_size: int, mean: Channels, std: Channels) -> nn.Module:
    """The same without chance: the centre of every image. Evaluation and prediction share it."""
    return nn.Sequential(
        v2.CenterCrop(image_size),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std)),
    )
