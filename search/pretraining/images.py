"""Training images on the device that trains: a batch's random crops are two matrix products."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinytl.description.config import IMAGENET, Normalization
from tinytl.engine.ops.normalize import normalize
from tinytl.training.data import ImageSplit

_ASPECT_RATIO = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Crops:
    """One random view per image: a box in shares of the side, a mirror image, a brightness.

    All fields have the shape (N,).
    """

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    mirrored: np.ndarray
    brightness: np.ndarray

    @classmethod
    def draw(
        cls,
        count: int,
        rng: np.random.Generator,
        *,
        min_crop_scale: float,
        horizontal_flip: bool,
        brightness: float,
    ) -> Crops:
        area, aspect, top, left, mirror, gain = rng.random((6, count))
        scale = min_crop_scale + (1 - min_crop_scale) * area
        ratio = np.exp((2 * aspect - 1) * math.log(_ASPECT_RATIO))
        height = np.minimum(1, np.sqrt(scale / ratio))
        width = np.minimum(1, np.sqrt(scale * ratio))
        return cls(
            top=top * (1 - height),
            left=left * (1 - width),
            height=height,
            width=width,
            mirrored=horizontal_flip & (mirror < 0.5),
            brightness=1 + (2 * gain - 1) * brightness,
        )

    def part(self, members: slice) -> Crops:
        return Crops(**{name: value[members] for name, value in vars(self).items()})

    def on(self, device: torch.device) -> Tensor:
        """The fields in their order, float32 (6, N)."""
        return torch.from_numpy(np.stack(list(vars(self).values())).astype(np.float32)).to(device)


class TrainingImages:
    """A split's images and labels on one device; on the CPU the images stay memory-mapped."""

    def __init__(
        self, split: ImageSplit, device: torch.device, normalization: Normalization = IMAGENET
    ) -> None:
        self._normalization = normalization
        self._images = split.all_images().to(device)
        self._labels = split.labels_of(range(len(split))).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: np.ndarray, crops: Crops, resolution: int) -> tuple[Tensor, Tensor]:
        """Normalized crops (N, 3, resolution, resolution) and labels (N,) of these images."""
        device = self._images.device
        chosen = torch.from_numpy(indices).to(device)
        top, left, height, width, mirrored, brightness = crops.on(device)
        images = self._images[chosen]
        side = images.shape[-1]
        down = resampling(side, top, height, resolution)
        across = resampling(side, left, width, resolution)
        across = torch.where(mirrored.bool()[:, None, None], across.flip(1), across)
        across = across * brightness[:, None, None]
        views = down[:, None] @ (images.float() @ across[:, None].transpose(2, 3))
        return normalize(views.clamp_(0, 255), self._normalization), self._labels[chosen]


def resampling(side: int, start: Tensor, length: Tensor, resolution: int) -> Tensor:
    """Weights (N, resolution, side) that resample a stretch of a line of pixels.

    start and length (N,) are shares of the side. The filter is a triangle, as in antialiased
    bilinear interpolation: it reaches one pixel of the coarser grid to either side.
    """
    scale = length * side / resolution
    steps = torch.arange(resolution, dtype=start.dtype, device=start.device) + 0.5
    pixels = torch.arange(side, dtype=start.dtype, device=start.device) + 0.5
    centres = (start * side)[:, None] + steps * scale[:, None]
    distances = (pixels - centres[:, :, None]).abs()
    weights = (1 - distances / scale.clamp(min=1)[:, None, None]).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch takes the images."""
    return np.random.default_rng([seed, epoch]).permutation(num_images)
