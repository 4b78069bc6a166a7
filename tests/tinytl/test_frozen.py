"""Gradients of the frozen layers against numerical ones and against plain autograd."""

import pytest
import torch
import torch.nn.functional as F

from tinytl.frozen import (
    frozen_conv,
    frozen_statistics_norm,
    group_norm,
    pack_bits,
    rectify,
    unpack_bits,
)
from tinytl.operations import mask_chunk_bytes
from tinytl.quantize import quantize, widen

_ACTIVATIONS = {
    None: lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "h_swish": F.hardswish,
}


def _random(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


@pytest.mark.parametrize("activation", _ACTIVATIONS)
@pytest.mark.parametrize(
    ("kernel_size", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (5, 1, 8), (5, 2, 8)]
)
def test_frozen_conv_against_numerical_gradients(activation, kernel_size, stride, groups):
    x = _random(1, 8, 4, 3, scale=3).requires_grad_()
    bias = _random(8, seed=1).requires_grad_()
    weight, scale = quantize(_random(8, 8 // groups, kernel_size, kernel_size, seed=2))

    def run(x, bias):
        return frozen_conv(
            x, weight, scale, bias, stride=stride, groups=groups, activation=activation
        )

    assert torch.autograd.gradcheck(run, (x, bias))


@pytest.mark.parametrize("activation", _ACTIVATIONS)
@pytest.mark.parametrize("size", [3, 40])
def test_frozen_conv_equals_plain_autograd(activation, size):
    x = _random(3, 24, size, size, scale=4).requires_grad_()
    bias = _random(32, seed=1).requires_grad_()
    weight, scale = quantize(_random(32, 24, 3, 3, seed=2))
    ours = frozen_conv(x, weight, scale, bias, stride=2, groups=1, activation=activation)
    plain = _ACTIVATIONS[activation](F.conv2d(x, widen(weight, scale), bias, 2, 1))
    grad = _random(*ours.shape, seed=3)
    torch.testing.assert_close(ours, plain)
    for found, expected in zip(
        torch.autograd.grad(ours, (x, bias), grad),
        torch.autograd.grad(plain, (x, bias), grad),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_frozen_conv_keeps_a_bit_per_value():
    """What autograd holds between forward and backward, counted through its own hook."""
    kept = []
    x = torch.randn(2, 16, 8, 8).requires_grad_()
    weight, scale = quantize(torch.randn(32, 16, 1, 1))
    bias = torch.zeros(32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        y = frozen_conv(x, weight, scale, bias, stride=1, groups=1, activation="relu6")
        frozen_conv(
            y,
            weight[:, :, :, :].repeat(1, 2, 1, 1),
            scale,
            bias,
            stride=1,
            groups=1,
            activation=None,
        )
    assert kept == [y.numel() // 8]


def test_nothing_is_kept_where_nothing_learns():
    x = torch.randn(2, 16, 8, 8)
    weight, scale = quantize(torch.randn(32, 16, 1, 1))
    y = frozen_conv(x, weight, scale, torch.zeros(32), stride=1, groups=1, activation="relu6")
    assert y.grad_fn is None


@pytest.mark.parametrize("num_values", [8, 8 * mask_chunk_bytes(1) + 8, 8 * 40_001])
def test_bits_are_unpacked_as_packed(num_values):
    mask = torch.rand(num_values, generator=torch.Generator().manual_seed(0)) > 0.5
    bits = pack_bits(mask)
    assert bits.numel() == num_values // 8
    assert torch.equal(unpack_bits(bits), mask)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_rectify_passes_gradients_where_the_activation_is_open(activation, memory_format):
    """Exactly 0 and exactly 6 are closed, as in torch."""
    x = (torch.arange(-40, 88).view(2, 16, 2, 2) / 8).contiguous(memory_format=memory_format)
    leaf = x.clone().requires_grad_()
    rectify(leaf * 1, activation).sum().backward()
    plain = x.clone().requires_grad_()
    _ACTIVATIONS[activation](plain).sum().backward()
    assert torch.equal(leaf.grad, plain.grad)


def test_frozen_statistics_norm_against_numerical_gradients():
    x, gain, bias = _random(2, 8, 3, 3), _random(8, seed=1), _random(8, seed=2)
    mean, inv_std = _random(8, seed=3), _random(8, seed=4).abs()
    inputs = [tensor.requires_grad_() for tensor in (x, gain, bias)]
    assert torch.autograd.gradcheck(
        lambda x, gain, bias: frozen_statistics_norm(x, gain, bias, mean, inv_std), inputs
    )
    expected = F.batch_norm(x, mean, inv_std**-2, gain, bias, eps=0)
    torch.testing.assert_close(frozen_statistics_norm(x, gain, bias, mean, inv_std), expected)


@pytest.mark.parametrize("needs_x", [True, False])
def test_group_norm_equals_torch(needs_x):
    """Also on a channels-last input that needs no gradient, where torch 2.13 crashes."""
    x = torch.randn(1, 16, 24, 24).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(needs_x)
    gain, bias = torch.rand(16, requires_grad=True), torch.rand(16, requires_grad=True)
    group_norm(x, gain, bias, 2, 1e-5).square().sum().backward()
    found = [gain.grad.clone(), bias.grad.clone(), x.grad]
    gain.grad = bias.grad = None
    plain = x.detach().contiguous().requires_grad_()
    F.group_norm(plain, 2, gain, bias, 1e-5).square().sum().backward()
    expected = (gain.grad, bias.grad, plain.grad if needs_x else None)
    for gradient, wanted in zip(found, expected, strict=True):
        if wanted is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-3)
