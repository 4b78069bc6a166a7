"""8-bit frozen weights, symmetric, one scale per output channel, stored as 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

_LEVELS = 127


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a convolution weight per output channel.

    weight: float (out, in, k, k). Returns int8 of that shape and scale (out, 1, 1, 1) with
    weight ~ int8 * scale, off by at most scale / 2.
    """
    scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / _LEVELS
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(weight / scale).to(torch.int8), scale


def dequantize(weight: Tensor, scale: Tensor | None) -> Tensor:
    """The float weight that (weight, scale) stands for; a float weight comes back as it is."""
    if scale is None:
        return weight
    return weight.to(scale.dtype).mul_(scale)
