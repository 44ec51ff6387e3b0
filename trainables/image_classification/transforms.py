"""Transforms of whole batches, on the batch's device, with a draw of its own for every image.

The transforms of ``torchvision.transforms.v2`` draw once a call: on a batch, every image would be
turned by the same angle. What draws nothing, or once a batch, is used from there.

All chance comes from torch's global generators, which ``Context.start_epoch`` seeds: a trial that
is resumed draws what it would have drawn, and every rank draws its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from trainables.image_classification import custom
from trainables.image_classification.augment import (
    ColorJitter,
    randaugment,
    rotate,
    trivialaugment,
)
from trainables.image_classification.config import Settings
from trainables.image_classification.crops import RandomCrop, RandomResizedCrop

Channels = tuple[float, float, float]
"""One number each for red, green and blue, in units of the full brightness."""


class RandomRotation(nn.Module):
    """Turn each of (N, C, S, S) float images about its centre; what comes into view is black."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def forward(self, images: Tensor) -> Tensor:
        """Rotate by angles drawn evenly between -degrees and +degrees."""
        drawn = 2 * torch.rand(len(images), device=images.device) - 1
        return rotate(images, self.degrees * drawn)


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


class Normalize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each channel.

    ``v2.Normalize`` copies them to the device in every call, and a GPU has to be waited for there.
    """

    def __init__(self, mean: Channels, std: Channels) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (..., 3, H, W) floats."""
        mean, std = (
            torch.stack([images.new_full((1, 1), value) for value in values])
            for values in (self.mean, self.std)
        )
        return (images - mean).div_(std)


def training(settings: Settings, mean: Channels, std: Channels) -> nn.Module:
    """From stored (N, 3, S, S) uint8 images to normalised (N, 3, image_size, image_size) floats.

    Raises:
        ValueError: ``settings.transforms`` cannot be imported, or makes no transform.

    """
    steps: list[nn.Module] = []
    if settings.transforms is not None:
        steps.append(custom.build(settings.transforms, settings))
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if settings.rotation:
        steps.append(RandomRotation(settings.rotation))
    steps.append(_crop(settings))
    if settings.horizontal_flip:
        steps.append(RandomFlip(v2.functional.horizontal_flip, settings.horizontal_flip))
    if settings.vertical_flip:
        steps.append(RandomFlip(v2.functional.vertical_flip, settings.vertical_flip))
    if settings.auto_augment == "randaugment":
        ops, magnitude = settings.randaugment_ops, settings.randaugment_magnitude
        steps.append(randaugment(settings.image_size, ops, magnitude))
    elif settings.auto_augment == "trivialaugment":
        steps.append(trivialaugment(settings.image_size))
    if settings.color_jitter or settings.hue_jitter:
        steps.append(ColorJitter(settings.color_jitter, settings.hue_jitter))
    return nn.Sequential(*steps, Normalize(mean, std))


def _crop(settings: Settings) -> nn.Module:
    if settings.resized_crop is not None:
        return RandomResizedCrop(settings.image_size, settings.resized_crop)
    if settings.random_crop:
        return RandomCrop(settings.image_size, settings.crop_padding)
    centre: nn.Module = v2.CenterCrop(settings.image_size)
    return centre


def evaluation(image_size: int, mean: Channels, std: Channels) -> nn.Module:
    """The same without chance: the centre of every image. Evaluation and prediction share it."""
    return nn.Sequential(
        v2.CenterCrop(image_size),
        v2.ToDtype(torch.float32, scale=True),
        Normalize(mean, std),
    )


def mixing(settings: Settings, num_classes: int) -> nn.Module | None:
    """MixUp, CutMix, or one of them a batch with equal chance; None where both are off.

    It turns (N, 3, H, W) float images and (N,) int64 classes into mixed images and (N, classes)
    shares of classes.
    """
    kinds = ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
    chosen = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
    mixer: nn.Module | None = v2.RandomChoice(chosen) if chosen else None
    return mixer


def mixes(settings: Settings) -> bool:
    """Whether :func:`mixing` mixes images."""
    return bool(settings.mixup or settings.cutmix)


def is_random(settings: Settings) -> bool:
    """Whether :func:`training` draws anything; the user's own transforms are taken to."""
    return bool(
        settings.transforms is not None
        or settings.rotation
        or settings.resized_crop is not None
        or settings.random_crop
        or settings.horizontal_flip
        or settings.vertical_flip
        or settings.auto_augment != "none"
        or settings.color_jitter
        or settings.hue_jitter
    )


def preprocessing_key(settings: Settings) -> dict[str, Any]:
    """All that decides what :func:`training` makes of a stored image, but for normalisation.

    Plain JSON values. The user's own transforms are given all settings and may read any: their key
    holds them all, and the version of their module's source.

    Raises:
        ValueError: ``settings.transforms`` cannot be imported.

    """
    if settings.transforms is not None:
        source = custom.source_hash(settings.transforms)
        return {**settings.model_dump(mode="json"), "transforms_source": source}
    read = {"image_size", "rotation", "resized_crop", "horizontal_flip", "vertical_flip"}
    read |= {"auto_augment", "color_jitter", "hue_jitter"}
    if settings.resized_crop is None:
        read |= {"random_crop", "crop_padding"} if settings.random_crop else {"random_crop"}
    if settings.auto_augment == "randaugment":
        read |= {"randaugment_ops", "randaugment_magnitude"}
    return settings.model_dump(mode="json", include=read)


def check_transforms(settings: Settings) -> None:
    """Refuse, before a run starts, a ``transforms`` that cannot work.

    Raises:
        ValueError: it cannot be imported, makes no transform, or one of a wrong result.

    """
    if settings.transforms is not None:
        custom.check(settings.transforms, settings)


def channels_last(inputs: Tensor) -> Tensor:
    """Laid out as convolutions take them fastest, where they are maps."""
    if inputs.ndim == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs
