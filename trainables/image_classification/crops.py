"""Random crops of whole batches, each image at a place of its own."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

Part = tuple[Tensor, Tensor]
"""Where the part of each image begins, and its length: (N,) each, in pixels."""

_RATIO = 4 / 3
"""Of width to height, or the reverse: the most of a part that is rescaled."""
_TRIES = 10
"""At a part that fits into the image."""


class RandomCrop(nn.Module):
    """Cut (N, C, size, size) out of (N, C, H, W), each image at a place of its own."""

    def __init__(self, size: int, padding: int = 0) -> None:
        super().__init__()
        self.size = size
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        """Pad with black, then crop."""
        images = functional.pad(images, [self.padding] * 4)
        count, channels, height, width = images.shape
        first = torch.arange(count, device=images.device)[:, None, None] * height
        rows = first + self._places(height, images)[:, :, None]
        pixels = rows * width + self._places(width, images)[:, None, :]
        # As rows of one table, which is three times as fast as by three indices.
        table = images.permute(0, 2, 3, 1).reshape(-1, channels)
        cut = table.index_select(0, pixels.flatten())
        return cut.view(count, self.size, self.size, channels).permute(0, 3, 1, 2)

    def _places(self, length: int, images: Tensor) -> Tensor:
        start = torch.randint(length - self.size + 1, (len(images), 1), device=images.device)
        return start + torch.arange(self.size, device=images.device)


class RandomResizedCrop(nn.Module):
    """Scale a part of each of (N, C, S, S) float images to (N, C, size, size).

    Parts are drawn as by ``v2.RandomResizedCrop``: of at least ``share`` of the area.
    """

    def __init__(self, size: int, share: float) -> None:
        super().__init__()
        self.size = size
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        """Cut and scale."""
        down, across = self.draw(len(images), images.shape[2], images.device)
        return resized_crop(images, down, across, self.size)

    def draw(self, count: int, side: int, device: torch.device) -> tuple[Part, Part]:
        """Rows and columns of a part of each image, whole pixels; all, where no try fits."""
        share, ratio = torch.rand(2, count, _TRIES, device=device)
        area = side**2 * (self.share + (1 - self.share) * share)
        ratio = torch.exp(math.log(_RATIO) * (2 * ratio - 1))
        lengths = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round()
        fits = ((lengths >= 1) & (lengths <= side)).all(0)
        first = fits.int().argmax(1).expand(2, -1)[..., None]
        lengths = lengths.gather(2, first)[..., 0].masked_fill(~fits.any(1), side)
        starts = (torch.rand_like(lengths) * (side - lengths + 1)).floor()
        return (starts[0], lengths[0]), (starts[1], lengths[1])


def resized_crop(images: Tensor, down: Part, across: Part, size: int) -> Tensor:
    """Scale a part of each of (N, C, H, W) float images to (N, C, size, size).

    Bilinear and antialiased, as torchvision's. That is linear and goes by rows and columns, so two
    batched matrix products do it for all images at once: the quickest way on a GPU.
    """
    rows = _weights(down, images.shape[2], size)
    columns = _weights(across, images.shape[3], size)
    return rows[:, None] @ (images @ columns[:, None].mT)


def _weights(part: Part, pixels: int, size: int) -> Tensor:
    """What each of ``size`` results takes of each of the ``pixels`` in a row: (N, size, pixels)."""
    start, end = part[0][:, None, None], (part[0] + part[1])[:, None, None]
    scale = (end - start) / size
    centre = start + scale * (torch.arange(size, device=start.device)[:, None] + 0.5)
    pixel = torch.arange(pixels, device=start.device)
    weights = (1 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel >= start) & (pixel < end))
    return weights / weights.sum(2, keepdim=True)
