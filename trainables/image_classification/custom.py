"""The user's own transforms: a function named ``package.module:function``, and what it returns."""

import hashlib
import inspect
import random
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.image_classification.config import Settings
from trainables.image_classification.decoding import stored_size


class OnBatches(nn.Module):
    """A callable on uint8 batches, held to return what it was given: uint8, of the same shape."""

    def __init__(self, name: str, transform: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.name = name
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        """Call it.

        Raises:
            ValueError: it returned something else.

        """
        return self.held(self.transform(images), images)

    def held(self, result: Any, images: Tensor) -> Tensor:
        """Refuse a ``result`` that is unlike ``images`` in type or shape."""
        got = f"a {type(result).__name__}"
        if isinstance(result, Tensor):
            if result.shape == images.shape and result.dtype == torch.uint8:
                return result
            got = f"{result.dtype} of shape {tuple(result.shape)}"
        raise ValueError(
            f"transforms is {self.name!r}, which turned torch.uint8 of shape "
            f"{tuple(images.shape)} into {got}: it must keep type and shape; scaling, cropping and "
            "normalising come after it"
        )


class ImageByImage(nn.Module):
    """An Albumentations transform on uint8 batches: each image alone, on the CPU, and back."""

    def __init__(self, transform: Any) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Tensor) -> Tensor:
        """Seed its generators from torch's, so that an epoch draws what its seed says."""
        seed = int(torch.randint(2**31, ()))
        # One pair for all parts: set_random_seed would seed each alike, and they drew the same.
        self.transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        changed = np.stack([self.transform(image=image)["image"] for image in pixels])
        return torch.from_numpy(changed).permute(0, 3, 1, 2).to(images.device)


def build(name: str, settings: Settings) -> OnBatches:
    """Import the function ``name`` and call it with ``settings``.

    Raises:
        ValueError: it cannot be imported, or returns no transform.

    """
    function = getattr(_module(name), name.partition(":")[2], None)
    if not callable(function):
        raise ValueError(  # noqa: TRY004 - a wrong name, not a wrong type
            f"transforms is {name!r}, but that module has no such function: give "
            "package.module:function"
        )
    try:
        transform = function(settings)
    except Exception as error:
        raise ValueError(
            f"transforms is {name!r}, which raised {_reason(error)}: it is called with the "
            "settings and must return a transform"
        ) from error
    if not callable(transform):
        raise ValueError(  # noqa: TRY004 - of the user's function, not of an argument
            f"transforms is {name!r}, which returned a {type(transform).__name__}: it must return "
            "a callable on uint8 batches (N, 3, S, S) or an Albumentations transform"
        )
    return OnBatches(name, ImageByImage(transform) if _of_albumentations(transform) else transform)


def check(name: str, settings: Settings) -> None:
    """Build it and put two black images through it.

    Raises:
        ValueError: it cannot be built, raises, or returns other than uint8 of the same shape.

    """
    built = build(name, settings)
    size = stored_size(settings.image_size)
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    try:
        result = built.transform(images)
    except Exception as error:
        raise ValueError(
            f"transforms is {name!r}, whose transform raised {_reason(error)} on two black images "
            f"of {size} x {size}: it must take torch.uint8 of shape {tuple(images.shape)}"
        ) from error
    built.held(result, images)


def source_hash(name: str) -> str:
    """What tells one version of the function's module from another."""
    return hashlib.sha256(inspect.getsource(_module(name)).encode()).hexdigest()[:16]


def _module(name: str) -> ModuleType:
    module, _, function = name.partition(":")
    if not (module and function):
        raise ValueError(f"transforms is {name!r}: it must be package.module:function")
    try:
        return import_module(module)
    except Exception as error:
        raise ValueError(
            f"transforms is {name!r}, but {module!r} cannot be imported ({_reason(error)}): it "
            "must be installed, or lie in the folder that the run is started in"
        ) from error


def _of_albumentations(transform: Any) -> bool:
    """Whoever built one has imported the package, so it need not be imported here to see that."""
    package = sys.modules.get("albumentations")
    return package is not None and isinstance(
        transform, (package.BasicTransform, package.BaseCompose)
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
