"""Bit masks against the gradients of torch's own rectifiers."""

import pytest
import torch
import torch.nn.functional as F

from tinytl.masks import mask_, open_mask, pack_bits, rectify_, unpack_bits


@pytest.mark.parametrize("num_values", [8, 64, 8 * 40_001])
def test_bits_are_unpacked_as_packed(num_values):
    mask = torch.rand(num_values, generator=torch.Generator().manual_seed(0)) > 0.5
    bits = pack_bits(mask)
    assert bits.numel() == num_values // 8
    assert torch.equal(unpack_bits(bits), mask)


def test_every_byte_of_bits_is_unpacked_as_packed():
    bits = torch.arange(256, dtype=torch.uint8)
    mask = unpack_bits(bits).view(256, 8)
    assert len(mask.unique(dim=0)) == 256
    assert torch.equal(pack_bits(mask.view(-1)), bits)


@pytest.mark.parametrize("shape", [(2, 16, 2, 2), (3, 24, 40, 40), (2, 8, 1, 1)])
@pytest.mark.parametrize(("rectifier", "stock"), [("relu", F.relu), ("relu6", F.relu6)])
def test_gradients_pass_where_the_rectifier_is_open(rectifier, stock, shape):
    """Exactly 0 and exactly 6 are closed, as in torch. The second map takes several chunks."""
    num_values = torch.Size(shape).numel()
    x = (torch.arange(num_values) % 128 - 40).view(shape) / 8
    x = x.contiguous(memory_format=torch.channels_last)
    plain = x.clone().requires_grad_()
    expected = stock(plain)
    grad = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    expected.backward(grad)
    y = rectify_(x, rectifier)
    bits = open_mask(y, rectifier)
    assert bits.untyped_storage().nbytes() == num_values // 8
    assert torch.equal(y, expected)
    assert torch.equal(mask_(grad, bits), plain.grad)
