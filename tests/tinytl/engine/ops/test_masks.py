"""Bit masks against the gradients of torch's own rectifiers."""

import pytest
import torch
import torch.nn.functional as F

from tinytl.description.chunks import MASK_CHUNK_WORDS
from tinytl.engine.ops.masks import apply_mask_, clamp_and_pack_


def test_every_word_is_packed_and_unpacked():
    """All words of 16 bits, a chunk of one word each would be in; here by chunks, bit by bit."""
    words = torch.arange(2**16 - 2**16 % MASK_CHUNK_WORDS).view(-1, 1, MASK_CHUNK_WORDS)
    is_open = words.bitwise_right_shift(torch.arange(16)[:, None]) % 2
    y = is_open.float().view(-1, 8, 1, 1)
    bits = clamp_and_pack_(y, "relu")
    assert torch.equal(bits.int() & 0xFFFF, words.flatten().int())
    assert torch.equal(apply_mask_(torch.ones_like(y), bits), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(2, 16, 2, 2), (3, 24, 40, 40), (2, 8, 1, 1), (1, 8, 1, 1), (3, 24, 31, 31)]
)
@pytest.mark.parametrize(("rectifier", "stock"), [("relu", F.relu), ("relu6", F.relu6)])
def test_gradients_pass_where_the_rectifier_is_open(rectifier, stock, shape, dtype):
    """Exactly 0 and exactly 6 are closed, as in torch. The large maps take several chunks; of the
    last two, 8 values are over."""
    num_values = torch.Size(shape).numel()
    x = (torch.arange(num_values, dtype=dtype) % 128 - 40).view(shape) / 8
    x = x.contiguous(memory_format=torch.channels_last)
    plain = x.clone().requires_grad_()
    expected = stock(plain)
    grad = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    expected.backward(grad)
    bits = clamp_and_pack_(x, rectifier)
    assert bits.untyped_storage().nbytes() == 2 * -(-num_values // 16)
    assert torch.equal(x, expected)
    assert torch.equal(apply_mask_(grad, bits), plain.grad)
