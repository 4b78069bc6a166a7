"""Convolutions over channels-last maps and their three gradients, each taken on its own.

Stock autograd keeps a convolution's input even where its weight is frozen. Taken apart, the
input's gradient needs the weight alone, and the weight's gradient the input alone.

Maps are stored channels last: in that layout torch's CPU convolutions need no copies of their
input and output in a layout of their own, and a pointwise convolution is a product of matrices:
it takes no workspace, whatever the sizes and the number of threads. Some of torch's convolutions
on other devices give another layout, which is changed; on the CPU that copies nothing.

All are padded by (k - 1) // 2 on every side, k being the weight's size. A weight of even size is
one of odd size with TensorFlow's "same" padding of an even side (see lay_out).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tinytl.description.chunks import DEQUANTIZE_CHUNK_VALUES
from tinytl.description.config import Padding, conv_pads
from tinytl.engine.ops.quantize import dequantize


def is_pointwise(weight: Tensor, stride: int, groups: int) -> bool:
    """Whether the convolution with a weight (out, in / groups, k, k) is a product of matrices."""
    return weight.shape[-1] == stride == groups == 1


def rows(x: Tensor) -> Tensor:
    """A channels-last map (N, C, H, W) as a matrix (N * H * W, C), a view."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def empty_channels_last(num_images: int, channels: int, size: torch.Size, like: Tensor) -> Tensor:
    """A channels-last map (num_images, channels, *size) whose values are yet to be written."""
    shape = (num_images, channels, *size)
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def channels_last(x: Tensor) -> Tensor:
    """The map (N, C, H, W) itself where it is channels last, else such a copy."""
    return x.contiguous(memory_format=torch.channels_last)


def lay_out(weight: Tensor, padding: Padding, stride: int, in_size: torch.Size) -> Tensor:
    """The weight (out, in, k, k) that gives a convolution of maps of in_size this padding.

    Mostly it is the weight itself. Where "same" pads one pixel less before a side, it is a copy
    with zeros before the side's values: then each of them meets the pixel after its own. That is
    leaner than a padded map, and as quick (docs/results.md).
    """
    zeros = []
    for side in reversed(in_size):
        before, after = conv_pads(padding, weight.shape[-1], stride, side)
        zeros += [int(before < after), 0]
    return F.pad(weight, zeros) if any(zeros) else weight


def cut_out(gradient: Tensor, kernel_size: int) -> Tensor:
    """The gradient (out, in, kernel_size, kernel_size) of the weight that was laid out."""
    return gradient[:, :, -kernel_size:, -kernel_size:].contiguous()


def _pad(weight: Tensor) -> int:
    return (weight.shape[-1] - 1) // 2


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, groups: int) -> Tensor:
    """Convolution. x: (N, C, H, W), weight: (out, C / groups, k, k)."""
    if is_pointwise(weight, stride, groups):
        y = empty_channels_last(len(x), len(weight), x.shape[2:], x)
        matrix = weight.flatten(1).t()
        if bias is None:
            torch.mm(rows(x), matrix, out=rows(y))
        else:
            torch.addmm(bias, rows(x), matrix, out=rows(y))
        return y
    return channels_last(F.conv2d(x, weight, bias, stride, _pad(weight), 1, groups))


def input_gradient(
    grad: Tensor, weight: Tensor, in_size: torch.Size, stride: int, groups: int
) -> Tensor:
    """Gradient of convolve's input, from the weight alone.

    grad: (N, out, H', W'); weight: (out, in / groups, k, k); in_size: (H, W). A convolution with
    the weight turned round, over the gradient with zeros between its values where the stride is
    2; for a depthwise one of stride 2, torch's transposed convolution, as its workspace is small,
    and for one with a weight that was laid out.
    """
    if is_pointwise(weight, stride, groups):
        grad_x = empty_channels_last(len(grad), weight.shape[1], in_size, grad)
        torch.mm(rows(grad), weight.flatten(1), out=rows(grad_x))
        return grad_x
    padding = _pad(weight)
    if groups == len(weight) and stride == 1:
        return channels_last(F.conv2d(grad, weight.flip(2, 3), None, 1, padding, 1, groups))
    if groups == len(weight) or _is_laid_out(weight):
        grad_x = F.conv_transpose2d(
            grad, weight, None, stride, padding, _rest(grad, weight, in_size, stride), groups
        )
        return channels_last(grad_x)
    grad_x = F.conv2d(
        _spread_out(grad, in_size, stride), _turned(weight, groups), None, 1, padding, 1, groups
    )
    return channels_last(grad_x)


def _rest(grad: Tensor, weight: Tensor, in_size: torch.Size, stride: int) -> list[int]:
    """Rows and columns of the input that a transposed convolution would leave out."""
    return [
        full - ((out - 1) * stride + kernel_size - 2 * _pad(weight))
        for full, out, kernel_size in zip(in_size, grad.shape[2:], weight.shape[2:], strict=True)
    ]


def _is_laid_out(weight: Tensor) -> bool:
    return any(side % 2 == 0 for side in weight.shape[2:])


def _spread_out(grad: Tensor, in_size: torch.Size, stride: int) -> Tensor:
    """grad with zeros between its values, (N, out, *in_size)."""
    if stride == 1:
        return grad
    num_images, channels = grad.shape[:2]
    spread = empty_channels_last(num_images, channels, in_size, grad).zero_()
    spread[:, :, ::stride, ::stride] = grad
    return spread


def _turned(weight: Tensor, groups: int) -> Tensor:
    """The weight (in, out / groups, k, k) of the convolution that takes gradients back."""
    by_group = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return by_group.flip(3, 4).flatten(0, 1)


def convolve_frozen(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, stride: int, groups: int
) -> Tensor:
    """convolve with the weight that (weight, scale) stands for (see tinytl.engine.ops.quantize).

    It is widened for as long as it takes; a large matrix, part by part.
    """
    if scale is None or not is_pointwise(weight, stride, groups):
        return convolve(x, dequantize(weight, scale), bias, stride, groups)
    y = empty_channels_last(len(x), len(weight), x.shape[2:], x)
    for part in _parts(weight):
        matrix = dequantize(weight[part], scale[part]).flatten(1).t()
        if bias is None:
            torch.mm(rows(x), matrix, out=rows(y)[:, part])
        else:
            torch.addmm(bias[part], rows(x), matrix, out=rows(y)[:, part])
        del matrix
    return y


def frozen_input_gradient(
    grad: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    in_size: torch.Size,
    stride: int,
    groups: int,
) -> Tensor:
    """Gradient of convolve_frozen's input."""
    if scale is None or not is_pointwise(weight, stride, groups):
        return input_gradient(grad, dequantize(weight, scale), in_size, stride, groups)
    grad_x = empty_channels_last(len(grad), weight.shape[1], in_size, grad)
    for part in _parts(weight):
        matrix = dequantize(weight[part], scale[part]).flatten(1)
        if part.start == 0:
            torch.mm(rows(grad)[:, part], matrix, out=rows(grad_x))
        else:
            rows(grad_x).addmm_(rows(grad)[:, part], matrix)
        del matrix
    return grad_x


def _parts(weight: Tensor) -> Iterator[slice]:
    """Stretches of output channels whose weights are at most DEQUANTIZE_CHUNK_VALUES values."""
    step = max(1, DEQUANTIZE_CHUNK_VALUES // weight[0].numel())
    for start in range(0, len(weight), step):
        yield slice(start, start + step)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """Gradient of convolve's weight: of its shape, from grad (N, out, H', W') and the input x.

    A map smaller than the kernel is padded first, and of a single position only the kernel's
    middle learns: on some processors oneDNN else copies the weight several times a thread.
    """
    if is_pointwise(weight, stride, groups):
        return torch.mm(rows(grad).t(), rows(x)).view_as(weight)
    padding = _pad(weight)
    if x.shape[2:] == (1, 1):
        gradient = torch.zeros_like(weight)
        gradient[:, :, padding, padding] = _position_gradient(grad, x, groups)
        return gradient
    if groups < len(weight) and min(x.shape[2:]) < weight.shape[-1]:
        x, padding = F.pad(x, [padding] * 4), 0
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups,
        [False, True, False],
    )  # fmt: skip
    result: Tensor = gradients[1]  # channels last, as x is
    return result.contiguous()


def _position_gradient(grad: Tensor, x: Tensor, groups: int) -> Tensor:
    """Weight gradient (out, in / groups) where grad (N, out, 1, 1) and x (N, in, 1, 1)."""
    outs, ins = (side.reshape(len(side), groups, -1).transpose(0, 1) for side in (grad, x))
    return torch.bmm(outs.transpose(1, 2), ins).flatten(0, 1)
