"""From the bytes of images to what networks are trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from tinytl.description.config import IMAGENET, Normalization


def normalize(images: Tensor, normalization: Normalization = IMAGENET) -> Tensor:
    """uint8 (N, 3, H, W) -> float32, normalized as a network takes them, channels last."""
    mean = torch.tensor(normalization.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(normalization.std, device=images.device).view(3, 1, 1)
    widened = images.to(torch.float32, memory_format=torch.channels_last)
    return widened.div_(255).sub_(mean).div_(std)
