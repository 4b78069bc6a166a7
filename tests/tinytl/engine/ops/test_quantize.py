import torch

from tinytl.engine.ops.quantize import dequantize, quantize


def test_error_is_at_most_half_a_step_per_channel():
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight *= torch.tensor([1e-3, 1, 10, 1e3, 1, 1]).view(-1, 1, 1, 1)
    packed, scale = quantize(weight)
    assert packed.dtype == torch.int8
    assert scale.shape == (6, 1, 1, 1)
    assert torch.all((dequantize(packed, scale) - weight).abs() <= scale / 2 * 1.0001)
    assert torch.all(packed.abs().amax((1, 2, 3)) == 127)


def test_a_channel_of_zeros_stays_zero():
    packed, scale = quantize(torch.zeros(2, 3, 1, 1))
    assert torch.equal(dequantize(packed, scale), torch.zeros(2, 3, 1, 1))


def test_widen_leaves_the_packed_weight_alone():
    packed, scale = quantize(torch.ones(1, 1, 1, 1))
    dequantize(packed, scale)
    assert packed.item() == 127
