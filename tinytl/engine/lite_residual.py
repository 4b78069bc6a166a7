"""The lite residual module (TinyTL paper, section 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytl.description.config import GROUP_NORM_CHANNELS, LiteResidualConfig, largest_divisor
from tinytl.engine.gradients import Gradients, learns
from tinytl.engine.ops.convolution import convolve, input_gradient, weight_gradient
from tinytl.engine.ops.norms import Statistics, group_norm, group_norm_backward
from tinytl.engine.ops.upsampling import upsample, upsample_backward


class LiteResidual(nn.Module):
    """upsample(norm(conv1x1(relu(norm(group_conv(pool(x))))))).

    The last norm starts with scale 0, so that a fresh module adds nothing. Its norms are group
    norms (8 channels a group) in every variant: they need no batch statistics.

    Backward needs the pooled input alone, a quarter of the input, and recomputes the rest.
    Weights that are stored in bfloat16 are widened while they are used.
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

    def pool(self, x: Tensor) -> Tensor:
        """x: (N, in_channels, H, W); all that forward and backward need of it."""
        return F.avg_pool2d(x, self._pool_size(x.shape[2:]))

    def forward(self, pooled: Tensor, out_size: torch.Size) -> Tensor:
        """pooled: what pool gave. Returns (N, out_channels, *out_size)."""
        y = self._narrow(pooled)[0]
        y = convolve(y, self._wide(self.conv2), None, 1, 1)
        y = self._normalize(y, self.final_bn)[0]
        if y.shape[2:] == out_size:
            return y
        return upsample(y, out_size)

    def _narrow(self, pooled: Tensor) -> tuple[Tensor, tuple[Tensor, Statistics]]:
        """The output of the rectifier; the first norm's input and statistics."""
        y = convolve(pooled, self._wide(self.conv1), None, self.config.stride, self.config.groups)
        normalized, statistics = self._normalize(y, self.bn1)
        return normalized.relu_(), (y, statistics)

    def _normalize(self, y: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Statistics]:
        return group_norm(y, norm.weight, norm.bias, norm.num_groups, norm.eps)

    def _wide(self, conv: nn.Conv2d) -> Tensor:
        return conv.weight.to(self.bn1.weight.dtype)

    def backward(
        self, grad: Tensor, pooled: Tensor, gradients: Gradients, *, needs_input: bool
    ) -> Tensor | None:
        """grad: of forward's output, left as it is. Returns the gradient of pooled."""
        rectified, (narrow, narrow_statistics) = self._narrow(pooled)
        end = convolve(rectified, self._wide(self.conv2), None, 1, 1)
        end_statistics = self._normalize(end, self.final_bn)[1]
        if grad.shape[2:] != end.shape[2:]:
            grad = upsample_backward(grad, end.shape[2:])
        grad = self._norm_backward(grad, end, self.final_bn, end_statistics, gradients)
        del end
        weight = self._wide(self.conv2)
        grad_rectified = input_gradient(grad, weight, rectified.shape[2:], 1, 1)
        if learns(self.conv2.weight):
            gradients.add(self.conv2.weight, weight_gradient(grad, rectified, weight, 1, 1))
        del weight
        grad = grad_rectified.mul_(rectified.sign_())
        del rectified, grad_rectified
        grad = self._norm_backward(grad, narrow, self.bn1, narrow_statistics, gradients)
        del narrow
        return self._conv1_backward(grad, pooled, gradients, needs_input=needs_input)

    def _norm_backward(
        self,
        grad: Tensor,
        x: Tensor,
        norm: nn.GroupNorm,
        statistics: Statistics,
        gradients: Gradients,
    ) -> Tensor:
        grad_x, grad_gain, grad_bias = group_norm_backward(grad, x, norm.weight, statistics)
        if learns(norm.weight):
            gradients.add(norm.weight, grad_gain)
        if learns(norm.bias):
            gradients.add(norm.bias, grad_bias)
        return grad_x

    def _conv1_backward(
        self, grad: Tensor, pooled: Tensor, gradients: Gradients, *, needs_input: bool
    ) -> Tensor | None:
        weight, config = self._wide(self.conv1), self.config
        grad_pooled = None
        if needs_input:
            size = pooled.shape[2:]
            grad_pooled = input_gradient(grad, weight, size, config.stride, config.groups)
        if learns(self.conv1.weight):
            gradients.add(
                self.conv1.weight,
                weight_gradient(grad, pooled, weight, config.stride, config.groups),
            )
        return grad_pooled

    def add_pool_gradient_(self, grad_x: Tensor, grad_pooled: Tensor) -> None:
        """Add to pool's input gradient, in place, what its output's gradient gives."""
        size = self._pool_size(grad_x.shape[2:])
        num_images, channels, rows, columns = grad_pooled.shape
        pooled = grad_x[:, :, : rows * size, : columns * size]
        cells = pooled.view(num_images, channels, rows, size, columns, size)
        cells.add_(grad_pooled[:, :, :, None, :, None], alpha=1 / size**2)

    def _pool_size(self, size: torch.Size) -> int:
        smallest_side = min(size)
        ratio = self.config.downsample_ratio
        return smallest_side if ratio is None else min(ratio, smallest_side)


def _group_norm(channels: int) -> nn.GroupNorm:
    groups = channels // largest_divisor(channels, GROUP_NORM_CHANNELS)
    return nn.GroupNorm(groups, channels)
