"""Bilinear upsampling, and its gradient.

On a GPU torch's own gradient adds up in whatever order its threads come to it, so that no two runs
are the same. There it is taken by two products of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinytl.engine.ops.convolution import channels_last


def upsample(x: Tensor, size: torch.Size) -> Tensor:
    """x: (N, C, H, W), channels last, with corners not aligned. Returns (N, C, *size)."""
    y: Tensor = torch.ops.aten.upsample_bilinear2d(x, size, False)
    return y


def upsample_matmul(x: Tensor, size: torch.Size) -> Tensor:
    """The same for contiguous maps, which torch upsamples on a GPU by a thread for each place, all
    images and channels in it; autograd goes back through it."""
    rows, columns = (
        _weights(in_size, out_size, x) for in_size, out_size in zip(x.shape[2:], size, strict=True)
    )
    return (x.flatten(2) @ torch.kron(rows, columns).t()).reshape(*x.shape[:2], *size)


def upsample_backward(grad: Tensor, in_size: torch.Size) -> Tensor:
    """Gradient (N, C, *in_size) of upsample's input."""
    if grad.device.type == "cpu":
        in_shape = (*grad.shape[:2], *in_size)
        grad_x: Tensor = torch.ops.aten.upsample_bilinear2d_backward(
            grad, grad.shape[2:], in_shape, False
        )
        return grad_x
    return upsample_backward_matmul(grad, in_size)


def upsample_backward_matmul(grad: Tensor, in_size: torch.Size) -> Tensor:
    """The same: with y = A x B^T for every map, its gradient is A^T g B."""
    rows, columns = (
        _weights(size, out_size, grad)
        for size, out_size in zip(in_size, grad.shape[2:], strict=True)
    )
    return channels_last(rows.t() @ (grad.contiguous() @ columns))


def _weights(size: int, out_size: int, like: Tensor) -> Tensor:
    """What each value along a side of this size adds to each one of the upsampled side:
    (out_size, size)."""
    units = torch.eye(size, dtype=like.dtype, device=like.device)[None, None]
    return upsample(units, torch.Size((out_size, size)))[0, 0]
