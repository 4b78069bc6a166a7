"""Norms of a frozen network, forward and backward: group norm, and fixed statistics.

Maps are channels last. torch's group norm takes them so on the CPU, and on other devices only in
torch's usual layout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinytl.engine.ops.convolution import channels_last

Statistics = tuple[Tensor, Tensor]
"""Mean and reciprocal deviation."""


def group_norm(
    x: Tensor, gain: Tensor, bias: Tensor, num_groups: int, eps: float
) -> tuple[Tensor, Statistics]:
    """Group norm of x (N, C, H, W) (arXiv 1803.08494), and its statistics, each (N, groups)."""
    y, mean, inv_std = torch.ops.aten.native_group_norm(
        _accepted(x), gain, bias, *_sizes(x), num_groups, eps
    )
    return channels_last(y), (mean, inv_std)


def group_norm_backward(
    grad: Tensor, x: Tensor, gain: Tensor, statistics: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of group_norm's x, gain and bias.

    The input's gradient needs the normalized input even where gain and bias are frozen: the
    paper's accounting leaves that out. torch 2.13 crashes on a channels-last x when that gradient
    is not asked for, so it always is; and it misreads a gradient of another layout than x.
    """
    mean, inv_std = statistics
    assert grad.is_contiguous(memory_format=torch.channels_last)
    grad_x, grad_gain, grad_bias = torch.ops.aten.native_group_norm_backward(
        _accepted(grad), _accepted(x), mean, inv_std, gain, *_sizes(x), mean.shape[1],
        (True, True, True),
    )  # fmt: skip
    return channels_last(grad_x), grad_gain, grad_bias


def _accepted(x: Tensor) -> Tensor:
    return x if x.device.type == "cpu" else x.contiguous()


def _sizes(x: Tensor) -> tuple[int, int, int]:
    num_images, channels, height, width = x.shape
    return num_images, channels, height * width


def frozen_norm_(x: Tensor, gain: Tensor, bias: Tensor, statistics: Statistics) -> Tensor:
    """(x - mean) * inv_std * gain + bias, in place: a batch norm whose statistics are fixed."""
    mean, inv_std = statistics
    factor = gain * inv_std
    return x.mul_(factor.view(-1, 1, 1)).add_((bias - mean * factor).view(-1, 1, 1))


def frozen_norm_backward_(
    grad: Tensor, x: Tensor, gain: Tensor, statistics: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of frozen_norm_'s x, gain and bias; grad and x are overwritten."""
    mean, inv_std = statistics
    grad_bias = grad.sum((0, 2, 3))
    grad_gain = x.mul_(grad).sum((0, 2, 3)).sub_(mean * grad_bias).mul_(inv_std)
    return grad.mul_((gain * inv_std).view(-1, 1, 1)), grad_gain, grad_bias
