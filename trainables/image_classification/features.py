"""What frozen stages make of the images: computed once, by all ranks, for all trials."""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from filelock import Timeout
from numpy.lib.format import open_memmap
from torch import Tensor, nn
from torch.utils.data import Dataset

from trainables.cache import DiskCache, new_array
from trainables.image_classification.config import Settings
from trainables.image_classification.data import ImageSet
from trainables.image_classification.transforms import channels_last, is_random, mixes
from trainables.optimization import autocast
from trainables.task import Context

CHUNK = 64
"""Images that are computed at once, by one rank, with random draws of their own."""
_LAYOUT = 1  # raise it when features are stored or computed in another way
_FILE = "features.npy"


class FeatureSet(Dataset[tuple[Tensor, Tensor]]):
    """Features of images, (views, images, ...) float32, with the class of each image."""

    def __init__(self, features: Any, targets: Tensor) -> None:
        self._features = features
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each list of indices: features (n, ...), of a view drawn for each, and classes."""
        views = len(self._features)
        for indices in batches:
            drawn = torch.randint(views, (len(indices),)).numpy() if views > 1 else 0
            yield torch.from_numpy(self._features[drawn, indices]), self.targets[indices]


def cacheable(settings: Settings, frozen_stages: int) -> bool:
    """Whether the frozen stages give the same features for an image in every epoch and trial."""
    return (
        settings.cache_features
        and frozen_stages > 0
        and settings.weights != "none"  # every trial draws its own
        and not mixes(settings)
        and (settings.feature_views is not None or not is_random(settings))
    )


@dataclass(frozen=True)
class FeatureStore:
    """The features that some frozen stages make, in the node's cache.

    Every rank calls the same in the same order. Ranks with one cache work on one file.
    """

    settings: Settings
    context: Context
    frozen_stages: int
    frozen: nn.Module
    """From (n, 3, H, W) images, normalised, to features (n, ...)."""
    in_use: str | None
    """The entry of the cache that must not make room for them: the images'."""

    def features(
        self, images: ImageSet, prepare: nn.Module, key: list[Any], views: int = 1
    ) -> FeatureSet | None:
        """Features of ``images``, from the cache, or computed now, by each rank a share of them.

        Args:
            images: (N, 3, S, S) uint8 in batches.
            prepare: what they go through first. It may draw: the same for an image and a view,
                whatever the trial, its ranks and its seed.
            key: JSON values, equal where images and ``prepare`` are.
            views: how often each image is computed, with other random draws.

        Returns:
            None where the cache has no room for them, on all ranks.

        """
        context, compute = self.context, partial(self._compute, prepare)
        cache = DiskCache(context.cache_dir, context.cache_bytes)
        name = f"features-{self._digest([*key, views])}"
        with ExitStack() as stack:
            create = partial(self._create, cache, name, images, views, compute)
            leads, folder = _folder(partial(_lead, cache, name, create), context, stack)
            if folder is None:
                return None
            incomplete = folder.name != name
            if incomplete:
                _fill(open_memmap(folder / _FILE, "r+"), images, compute, context)
            context.barrier()  # all ranks are done
            if incomplete and leads:
                cache.keep(name)
            context.barrier()  # the folder has its name
            found = np.load(context.cache_dir / name / _FILE, mmap_mode="r")
            context.barrier()  # all have it open, and nobody can take it away any more
        return FeatureSet(found, images.targets)

    def _create(
        self,
        cache: DiskCache,
        name: str,
        images: ImageSet,
        views: int,
        compute: Callable[[Tensor, int], Tensor],
    ) -> Path | None:
        """A folder with room for the features, to be filled; None: there is no room."""
        of_one = compute(images.batch([0])[0], 0)
        shape = views, len(images), *of_one.shape[1:]
        size = 4 * int(np.prod(shape)) + 4096
        folder = cache.make(name, size, [self.in_use] if self.in_use else [])
        if folder is not None:
            new_array(folder / _FILE, np.float32, shape)
        return folder

    def _compute(self, prepare: nn.Module, images: Tensor, seed: int) -> Tensor:
        """Features (n, ...) of uint8 images."""
        device = self.context.device
        devices = [device] if device.type == "cuda" else []
        self.frozen.eval()
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            inputs = channels_last(prepare(images.to(device, non_blocking=True)))
            with autocast(device, self.settings.precision):
                features: Tensor = self.frozen(inputs)
        return features.float().cpu()

    def _digest(self, key: list[Any]) -> str:
        """Of all that the features depend on."""
        settings = self.settings
        of_network = settings.backbone, _weights_digest(settings.weights), self.frozen_stages
        of_pass = settings.image_size, settings.precision
        text = json.dumps([_LAYOUT, *of_network, *of_pass, *key], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _folder(
    lead: Callable[[ExitStack], str | None], context: Context, stack: ExitStack
) -> tuple[bool, Path | None]:
    """Whether this rank leads those with its cache, and the entry's folder: complete, or to fill.

    None where some cache has no room. The leader keeps the entry's lock until ``stack`` closes. No
    rank waits for a lock: the others would wait for it in a collective, which has a time limit.
    """
    first, _ = context.cache_ranks
    leads = context.rank == first
    while True:
        with ExitStack() as attempt:
            answer = lead(attempt) if leads else None
            answers = context.gather((first, answer))
            of_leaders = [answers[leader][1] for leader in {leader for leader, _ in answers}]
            if "busy" not in of_leaders:
                stack.push(attempt.pop_all())
                missing = None in of_leaders
                return leads, None if missing else Path(str(answers[first][1]))
        time.sleep(random.uniform(0.5, 1.5))  # another trial computes them: they will be there soon


def _lead(
    cache: DiskCache, name: str, create: Callable[[], Path | None], stack: ExitStack
) -> str | None:
    """The path of the entry's folder; ``busy``: another trial is at it; None: there is no room."""
    try:
        stack.enter_context(cache.lock(name).acquire(timeout=0))
    except Timeout:
        return "busy"
    try:
        folder = cache.get(name) or create()
    except OSError:  # the disk is full
        return None
    return str(folder) if folder is not None else None


def _fill(
    features: Any, images: ImageSet, compute: Callable[[Tensor, int], Tensor], context: Context
) -> None:
    """Write the share of this rank into the node's file (views, images, ...), a chunk at a time."""
    _, ranks = context.cache_ranks
    if context.rank not in ranks:  # the file is another host's: to write in it is left to that
        return
    starts = range(CHUNK * ranks.index(context.rank), len(images), CHUNK * len(ranks))
    rows = [list(range(start, min(start + CHUNK, len(images)))) for start in starts]
    for view, of_view in enumerate(features):
        for chunk, (pixels, _) in zip(rows, images.batches(rows), strict=True):
            context.check_group()
            of_view[chunk] = compute(pixels, view * len(images) + chunk[0]).numpy()
    features.flush()


def _weights_digest(weights: str) -> str:
    """``default`` with the versions that it depends on, or what the file holds."""
    if weights == "default":
        return f"default, torchvision {torchvision.__version__}, timm {timm.__version__}"
    status = Path(weights).stat()
    return _digest(weights, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - they tell of a change
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
