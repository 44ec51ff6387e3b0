"""What a user would name under ``transforms``."""

import numpy as np
import torch

from trainables.image_classification.config import Settings


def mirrored(settings: Settings):
    return lambda images: images.flip(-1)


def noisy(settings: Settings):
    return lambda images: images ^ torch.randint(0, 2, images.shape, dtype=torch.uint8)


def module(settings: Settings):
    return torch.nn.Identity()


def flips(settings: Settings):
    import albumentations

    return albumentations.Compose(
        [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    )


def inverted(settings: Settings):
    import albumentations

    return albumentations.InvertImg(p=1.0)


def floats(settings: Settings):
    import albumentations

    return albumentations.Normalize()


def smaller(settings: Settings):
    return lambda images: images[..., :-1]


def as_floats(settings: Settings):
    return lambda images: images.float()


def as_array(settings: Settings):
    return lambda images: np.zeros(3)


def failing(settings: Settings):
    raise RuntimeError("no such file")


def failing_later(settings: Settings):
    def change(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of paint")

    return change


def nothing(settings: Settings):
    return None


number = 3
