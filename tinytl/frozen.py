"""Layers with frozen weights that keep nothing that their backward does not need.

Stock autograd keeps the input of a frozen convolution and a full-precision map for ReLU6. The
gradient of a bias needs neither (TinyTL paper, section 3.1): here a convolution keeps its 8-bit
weight, which exists anyway, and a ReLU one bit per element.

Maps are stored channels last: in that layout torch's CPU convolutions need no copies of their
input and output in a layout of their own, and are faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytl.config import Activation
from tinytl.operations import mask_chunk_bytes
from tinytl.quantize import widen

_PACK_FACTOR = 0x0102040810204080
_SPREAD_FACTOR = 0x0101010101010101
_SPREAD_MASK = 0x8040201008040201 - (1 << 64)
_RELU6_MAX = 6.0


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a flat bool tensor, whose size is a multiple of 8, into bits of uint8.

    Eight bools are read as one 64-bit word; a multiplication gathers them in its top byte.
    """
    words = mask.view(torch.int64)
    return (words * _PACK_FACTOR).bitwise_right_shift_(56).to(torch.uint8)


def unpack_bits(bits: Tensor) -> Tensor:
    """The flat bool tensor that pack_bits packed."""
    words = bits.to(torch.int64).mul_(_SPREAD_FACTOR).bitwise_and_(_SPREAD_MASK)
    return words.view(torch.uint8).ne(0)


def activate_(x: Tensor, activation: Activation | None) -> Tensor:
    """Apply the activation in place where it can be; no gradient is recorded."""
    if activation == "relu6":
        return x.clamp_(0, _RELU6_MAX)
    if activation == "relu":
        return x.clamp_(min=0)
    if activation == "h_swish":
        return F.hardswish(x, inplace=True)
    return x


def _chunks(values: Tensor, bits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of flat values and of the bits that belong to them, a stretch at a time."""
    size = mask_chunk_bytes(bits.numel())
    for start in range(0, bits.numel(), size):
        stop = start + size
        yield values[8 * start : 8 * stop], bits[start:stop]


def _open_mask(y: Tensor, activation: Activation) -> Tensor:
    """Where a rectifier with output y lets gradients through: a bit each, channels last.

    Made chunk by chunk, so that the bools take little room.
    """
    flat = y.permute(0, 2, 3, 1).reshape(-1)
    bits = torch.empty(flat.numel() // 8, dtype=torch.uint8, device=y.device)
    for part, part_bits in _chunks(flat, bits):
        mask = part > 0
        if activation == "relu6":
            mask.logical_and_(part < _RELU6_MAX)
        part_bits.copy_(pack_bits(mask))
    return bits


def _rectified_gradient(grad: Tensor, bits: Tensor) -> Tensor:
    result = grad.clone(memory_format=torch.channels_last)
    flat = result.permute(0, 2, 3, 1).view(-1)
    for part, part_bits in _chunks(flat, bits):
        part.mul_(unpack_bits(part_bits))
    return result


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    """Convolution with padding kernel // 2. x: (N, C, H, W), weight: (out, C / groups, k, k).

    A pointwise one is a product of matrices over channels-last maps: it takes no workspace,
    where torch's convolutions make copies that depend on sizes and the number of threads.
    """
    kernel_size = weight.shape[-1]
    if kernel_size == stride == groups == 1:
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, stride, kernel_size // 2, 1, groups)


def _pointwise(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """x's channels times matrix (out, in), plus bias, without gradients.

    It writes into a map of its own, which may then be changed in place; convolve gives a view.
    """
    num_images, channels, height, width = x.shape
    shape = (num_images, len(matrix), height, width)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    out = y.permute(0, 2, 3, 1).view(-1, len(matrix))
    if bias is None:
        torch.mm(rows, matrix.t(), out=out)
    else:
        torch.addmm(bias, rows, matrix.t(), out=out)
    return y


def _frozen_convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int
) -> Tensor:
    if weight.shape[-1] == stride == groups == 1:
        return _pointwise(x, weight.flatten(1), None if bias is None else bias.detach())
    return convolve(x, weight, bias, stride, groups)


def input_gradient(
    grad: Tensor, weight: Tensor, in_size: torch.Size, stride: int, groups: int
) -> Tensor:
    """Gradient of convolve's input: a transposed convolution, which needs no input.

    grad: (N, out, H', W'); weight: (out, in / groups, k, k); in_size: (H, W).
    """
    kernel_size = weight.shape[-1]
    if kernel_size == stride == groups == 1:
        return _pointwise(grad, weight.flatten(1).t(), None)
    padding = kernel_size // 2
    rest = [
        full - ((out - 1) * stride - 2 * padding + kernel_size)
        for full, out in zip(in_size, grad.shape[2:], strict=True)
    ]
    return F.conv_transpose2d(grad, weight, None, stride, padding, rest, groups)


class _FrozenConv(torch.autograd.Function):
    """activation(conv(x, weight) + bias) with a frozen weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        weight: Tensor,
        scale: Tensor | None,
        stride: int,
        groups: int,
        activation: Activation | None,
    ) -> Tensor:
        y = _frozen_convolve(x, widen(weight, scale), bias, stride, groups)
        ctx.geometry = (x.shape[2:], stride, groups)
        ctx.activation = activation
        # the weight is no part of the graph's memory: the layer holds it in any case
        ctx.weight, ctx.scale = weight, scale
        if activation == "h_swish":
            ctx.save_for_backward(y)
            return F.hardswish(y)
        activate_(y, activation)
        if activation is not None:
            ctx.save_for_backward(_open_mask(y, activation))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if ctx.activation is not None:
            grad = _activation_gradient(grad, ctx.saved_tensors[0], ctx.activation)
        needs_x, needs_bias = ctx.needs_input_grad[:2]
        grad_bias = grad.sum((0, 2, 3)) if needs_bias else None
        grad_x = None
        if needs_x:
            grad_x = input_gradient(grad, widen(ctx.weight, ctx.scale), *ctx.geometry)
        return grad_x, grad_bias, None, None, None, None, None


def _activation_gradient(grad: Tensor, saved: Tensor, activation: Activation) -> Tensor:
    if activation == "h_swish":
        result: Tensor = torch.ops.aten.hardswish_backward(grad, saved)
        return result
    return _rectified_gradient(grad, saved)


def frozen_conv(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    *,
    stride: int,
    groups: int,
    activation: Activation | None,
) -> Tensor:
    """activation(conv(x, weight * scale) + bias); x: (N, C, H, W), padding kernel // 2.

    weight: int8 with scale, or float with scale None; it gets no gradient. Keeps for backward
    1 bit per output for ReLU and ReLU6, the pre-activation for h-swish, else nothing.
    """
    bias_learns = bias is not None and bias.requires_grad
    if not (torch.is_grad_enabled() and (x.requires_grad or bias_learns)):
        y = _frozen_convolve(x, widen(weight, scale), bias, stride, groups)
        return activate_(y, activation)
    learned: Tensor = _FrozenConv.apply(  # type: ignore[no-untyped-call]
        x, bias, weight, scale, stride, groups, activation
    )
    return learned


class _PackedRectifier(torch.autograd.Function):
    """ReLU or ReLU6, in place, keeping one bit per element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation) -> Tensor:
        ctx.mark_dirty(activate_(x, activation))
        ctx.save_for_backward(_open_mask(x, activation))
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _rectified_gradient(grads[0], ctx.saved_tensors[0]), None


def rectify(x: Tensor, activation: Activation | None) -> Tensor:
    """The activation of a tensor that nothing else needs: rectifiers work in place."""
    if activation is None:
        return x
    if not torch.is_grad_enabled():
        return activate_(x, activation)
    if activation == "h_swish":
        return F.hardswish(x)
    y: Tensor = _PackedRectifier.apply(x, activation)  # type: ignore[no-untyped-call]
    return y


class _FrozenStatisticsNorm(torch.autograd.Function):
    """(x - mean) * inv_std * gain + bias: a batch norm whose statistics are fixed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, gain)
        ctx.statistics = (mean, inv_std)
        factor = gain * inv_std
        y = x * factor.view(-1, 1, 1)
        return y.add_((bias - mean * factor).view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, gain = ctx.saved_tensors
        mean, inv_std = ctx.statistics
        grad_bias = grad.sum((0, 2, 3))
        grad_gain = ((grad * x).sum((0, 2, 3)) - mean * grad_bias) * inv_std
        grad_x = grad * (gain * inv_std).view(-1, 1, 1) if ctx.needs_input_grad[0] else None
        return grad_x, grad_gain, grad_bias, None, None


def frozen_statistics_norm(
    x: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor
) -> Tensor:
    """A batch norm with fixed statistics and trained gain and bias; keeps x. x: (N, C, H, W)."""
    y: Tensor = _FrozenStatisticsNorm.apply(  # type: ignore[no-untyped-call]
        x, gain, bias, mean, inv_std
    )
    return y


class _GroupNorm(torch.autograd.Function):
    """Group norm that keeps its input, as its backward needs the normalized values.

    torch 2.13's own backward crashes on a channels-last input that needs no gradient; this one
    always has that gradient computed.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, num_groups: int, eps: float
    ) -> Tensor:
        num_images, channels, height, width = x.shape
        ctx.sizes = (num_images, channels, height * width, num_groups)
        y, mean, inv_std = torch.ops.aten.native_group_norm(x, gain, bias, *ctx.sizes, eps)
        ctx.save_for_backward(x, gain, mean, inv_std)
        normalized: Tensor = y
        return normalized

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, mean, inv_std = ctx.saved_tensors
        needs_x, needs_gain, needs_bias = ctx.needs_input_grad[:3]
        grad_x, grad_gain, grad_bias = torch.ops.aten.native_group_norm_backward(
            grads[0], x, mean, inv_std, gain, *ctx.sizes, (True, needs_gain, needs_bias)
        )
        return grad_x if needs_x else None, grad_gain, grad_bias, None, None


def group_norm(x: Tensor, gain: Tensor, bias: Tensor, num_groups: int, eps: float) -> Tensor:
    """Group norm of x (N, C, H, W), which it keeps; gain and bias trained or not."""
    y: Tensor = _GroupNorm.apply(x, gain, bias, num_groups, eps)  # type: ignore[no-untyped-call]
    return y
