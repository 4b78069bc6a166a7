"""Convolutions and their gradients, each on its own, against numerical ones."""

import pytest
import torch
import torch.nn.functional as F

from tinytl.description.config import conv_pads
from tinytl.engine.ops.convolution import (
    convolve,
    convolve_frozen,
    cut_out,
    frozen_input_gradient,
    input_gradient,
    lay_out,
    weight_gradient,
)
from tinytl.engine.ops.quantize import dequantize, quantize

_OUT = 8
_KINDS = [  # kernel size, stride, groups
    (1, 1, 1),
    (1, 2, 1),
    (3, 2, 1),
    (3, 1, 2),
    (5, 2, 2),
    *((kernel_size, stride, _OUT) for kernel_size in (3, 5, 7) for stride in (1, 2)),
]
KINDS = pytest.mark.parametrize(("kernel_size", "stride", "groups"), _KINDS)


def _random(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@KINDS
@pytest.mark.parametrize("size", [(5, 3), (4, 6), (1, 1)], ids=str)
def test_gradients_of_a_trained_convolution(
    check_gradients, random_map, kernel_size, stride, groups, size
):
    x = random_map(2, 8, *size)
    weight = _random(_OUT, 8 // groups, kernel_size, kernel_size, seed=2)

    def backward(grad, x, weight, bias):
        return (
            input_gradient(grad, weight, x.shape[2:], stride, groups),
            weight_gradient(grad, x, weight, stride, groups),
            grad.sum((0, 2, 3)),
        )

    def forward(x, weight, bias):
        y = convolve(x, weight, bias, stride, groups)
        expected = F.conv2d(x, weight, bias, stride, kernel_size // 2, 1, groups)
        torch.testing.assert_close(y, expected)
        return y

    check_gradients(forward, backward, x, weight, _random(_OUT, seed=3), fast=True)


@KINDS
@pytest.mark.parametrize("size", [(6, 8), (5, 3), (4, 3), (3, 4), (2, 2), (1, 2)], ids=str)
def test_gradients_with_the_padding_of_tensorflow(
    check_gradients, random_map, kernel_size, stride, groups, size
):
    """Even sides and odd ones, as large as the kernel and smaller."""
    x = random_map(2, 8, *size)
    weight = _random(_OUT, 8 // groups, kernel_size, kernel_size, seed=2)
    height, width = (conv_pads("same", kernel_size, stride, side) for side in size)

    def forward(x, weight):
        laid_out = lay_out(weight, "same", stride, x.shape[2:])
        y = convolve(x, laid_out, None, stride, groups)
        padded = F.pad(x, [*width, *height])
        torch.testing.assert_close(y, F.conv2d(padded, weight, None, stride, 0, 1, groups))
        return y

    def backward(grad, x, weight):
        laid_out = lay_out(weight, "same", stride, x.shape[2:])
        return (
            input_gradient(grad, laid_out, x.shape[2:], stride, groups),
            cut_out(weight_gradient(grad, x, laid_out, stride, groups), kernel_size),
        )

    check_gradients(forward, backward, x, weight, fast=True)


def test_a_weight_is_laid_out_where_the_paddings_differ():
    """At stride 2 on even sides, in the bits that it is stored in."""
    weight, _ = quantize(_random(_OUT, 1, 3, 3, seed=2))
    for padding, stride, size in (
        ("symmetric", 2, (4, 4)),
        ("same", 1, (4, 4)),
        ("same", 2, (5, 5)),
    ):
        assert lay_out(weight, padding, stride, torch.Size(size)) is weight
    laid_out = lay_out(weight, "same", 2, torch.Size((4, 5)))
    assert laid_out.dtype == torch.int8
    assert laid_out.shape == (_OUT, 1, 4, 3)
    assert torch.equal(cut_out(laid_out, 3), weight)


@KINDS
@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_gradient_of_a_frozen_convolution(
    check_gradients, random_map, monkeypatch, kernel_size, stride, groups, bits, has_bias
):
    """Its matrix is widened three output channels at a time: three parts, the last smaller."""
    monkeypatch.setattr("tinytl.engine.ops.convolution.DEQUANTIZE_CHUNK_VALUES", 24)
    wide = _random(_OUT, 8 // groups, kernel_size, kernel_size, seed=2)
    weight, scale = quantize(wide) if bits == 8 else (wide, None)
    bias = _random(_OUT, seed=3) if has_bias else None

    def forward(x):
        y = convolve_frozen(x, weight, scale, bias, stride, groups)
        torch.testing.assert_close(y, convolve(x, dequantize(weight, scale), bias, stride, groups))
        return y

    def backward(grad, x):
        return (frozen_input_gradient(grad, weight, scale, x.shape[2:], stride, groups),)

    check_gradients(forward, backward, random_map(2, 8, 5, 4), fast=True)


def test_a_frozen_matrix_widened_row_by_row(random_map, monkeypatch):
    """A row that alone is larger than a part may be is a part."""
    monkeypatch.setattr("tinytl.engine.ops.convolution.DEQUANTIZE_CHUNK_VALUES", 4)
    x = random_map(2, 8, 3, 3)
    weight, scale = quantize(_random(_OUT, 8, 1, 1, seed=2))
    found = convolve_frozen(x, weight, scale, None, 1, 1)
    torch.testing.assert_close(found, convolve(x, dequantize(weight, scale), None, 1, 1))
    found = frozen_input_gradient(x, weight, scale, x.shape[2:], 1, 1)
    expected = input_gradient(x, dequantize(weight, scale), x.shape[2:], 1, 1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@KINDS
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 4)], ids=str)
def test_maps_and_their_gradients_are_channels_last(kernel_size, stride, groups, size, dtype):
    """Also from a map of 1x1, whose layout says nothing."""
    x = torch.zeros(2, 8, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.zeros(_OUT, 8 // groups, kernel_size, kernel_size, dtype=dtype)
    y = convolve(x, weight, None, stride, groups)
    for found in (y, input_gradient(y, weight, x.shape[2:], stride, groups)):
        assert found.is_contiguous(memory_format=torch.channels_last)
