"""The lite residual module (TinyTL paper, section 3.2)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.config import GROUP_NORM_CHANNELS, LiteResidualConfig, largest_divisor
from tinytl.frozen import convolve


class _AveragePool(torch.autograd.Function):
    """Average pooling with stride = kernel that keeps only the input's shape for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: int) -> Tensor:
        ctx.in_size = x.shape[2:]
        ctx.kernel_size = kernel_size
        return F.avg_pool2d(x, kernel_size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        kernel_size = ctx.kernel_size
        (grad,) = grads
        spread = F.interpolate(grad / kernel_size**2, scale_factor=kernel_size, mode="nearest")
        missing = [full - kept for full, kept in zip(ctx.in_size, spread.shape[2:], strict=True)]
        if any(missing):
            spread = F.pad(spread, (0, missing[1], 0, missing[0]))
        return spread, None


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // largest_divisor(channels, GROUP_NORM_CHANNELS), channels)


class LiteResidual(nn.Module):
    """upsample(norm(conv1x1(relu(norm(group_conv(pool(x))))))).

    The last norm starts with scale 0, so that a fresh module adds nothing. Its norms are group
    norms (8 channels a group) in every variant: they need no batch statistics.
    """

    def __init__(
        self, config: LiteResidualConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        mid = config.mid_channels
        kernel_size = config.kernel_size
        self.conv1 = nn.Conv2d(
            config.in_channels,
            mid,
            kernel_size,
            config.stride,
            kernel_size // 2,
            groups=config.groups,
            bias=False,
        )
        self.bn1 = _group_norm(mid)
        self.conv2 = nn.Conv2d(mid, config.out_channels, 1, bias=False)
        self.final_bn = _group_norm(config.out_channels)
        self.reset(generator)

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Initialise as published: He normal by fan-out, last norm's scale 0."""
        for conv in (self.conv1, self.conv2):
            fan_out = conv.out_channels * conv.kernel_size[0] ** 2
            conv.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
        self.bn1.weight.fill_(1)
        self.bn1.bias.zero_()
        self.final_bn.weight.zero_()
        self.final_bn.bias.zero_()

    def forward(self, x: Tensor, out_size: tuple[int, int]) -> Tensor:
        """x: (N, in_channels, H, W). Returns (N, out_channels, *out_size)."""
        y: Tensor = _AveragePool.apply(x, self._pool_size(x))  # type: ignore[no-untyped-call]
        y = F.relu(self.bn1(self.conv1(y)), inplace=True)
        y = self.final_bn(convolve(y, self.conv2.weight, None, 1, 1))
        if y.shape[2:] == out_size:
            return y
        return F.interpolate(y, size=out_size, mode="bilinear", align_corners=False)

    def _pool_size(self, x: Tensor) -> int:
        smallest_side = min(x.shape[2:])
        ratio = self.config.downsample_ratio
        return smallest_side if ratio is None else min(ratio, smallest_side)
