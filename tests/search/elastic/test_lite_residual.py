from dataclasses import replace

import pytest
import torch
from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import DynamicGroupConv2d

from search.elastic import lite_residual as elastic_lite_residual
from search.elastic.lite_residual import cut, cut_weight, smaller
from search.space.architecture import SupernetSpec
from search.space.lite_residual_sizes import LARGEST, SIZES
from tinytl.description.config import LiteResidualConfig, LiteResidualSize, with_lite_residuals
from tinytl.engine.lite_residual import LiteResidual

CONFIG = LiteResidualConfig(in_channels=16, out_channels=24, kernel_size=5, stride=2)
SMALLEST = LiteResidualSize(groups=4, max_kernel_size=3)


def make_module(config=CONFIG):
    """A module none of whose parts can be mistaken for another."""
    generator = torch.Generator().manual_seed(1)
    module = LiteResidual(config, generator).requires_grad_(False)
    for norm in (module.bn1, module.final_bn):
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(generator=generator)
    return module


def maps(side=13):
    x = torch.randn(2, 16, side, side, generator=torch.Generator().manual_seed(2))
    return x.contiguous(memory_format=torch.channels_last)


def test_sizes_are_the_papers():
    assert {(size.groups, size.max_kernel_size) for size in SIZES} == {
        (2, 3),
        (2, 5),
        (4, 3),
        (4, 5),
    }
    assert LARGEST in SIZES


@pytest.mark.parametrize("size", SIZES)
def test_weights_are_cut_as_ofa_cuts_them(size):
    module = make_module()
    reference = DynamicGroupConv2d(16, 16, [3, 5], [2, 4], stride=2)
    reference.conv.weight.data = module.conv1.weight
    part = smaller(CONFIG, size)
    expected = reference.get_active_filter(size.max_kernel_size, size.groups)
    assert torch.equal(cut_weight(module.conv1.weight, CONFIG, part), expected)


def by_hand(module):
    """The module of 4 groups and kernel 3 inside one of 2 groups and kernel 5, value by value."""
    found = LiteResidual(replace(module.config, groups=4, kernel_size=3)).requires_grad_(False)
    for name in ("bn1", "conv2", "final_bn"):
        getattr(found, name).load_state_dict(getattr(module, name).state_dict())
    for out in range(16):
        for channel in range(4):  # of the 4 that the small group sees, 8 the large one
            seen = (out // 4) * 4 + channel
            inside = seen - (out // 8) * 8
            for row in range(3):
                for column in range(3):
                    value = module.conv1.weight[out, inside, row + 1, column + 1]
                    found.conv1.weight[out, channel, row, column] = value
    return found


def test_the_smallest_by_hand():
    module, x = make_module(), maps()
    expected = by_hand(module)
    found = cut(module, SMALLEST)
    assert found.config == expected.config
    for name, value in found.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name
    out_size = torch.Size((7, 7))
    torch.testing.assert_close(
        elastic_lite_residual.run(module, x, out_size, SMALLEST),
        expected(expected.pool(x), out_size),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("size", [None, *SIZES])
@pytest.mark.parametrize("kernel_size", [1, 5])
def test_runs_as_the_module_of_its_own(size, kernel_size):
    pools_all = kernel_size == 1
    module = make_module(
        replace(CONFIG, kernel_size=kernel_size, downsample_ratio=None if pools_all else 2)
    )
    own = cut(module, size or LARGEST)
    x, out_size = maps(), torch.Size((7, 7))
    torch.testing.assert_close(
        elastic_lite_residual.run(module, x, out_size, size),
        own(own.pool(x), out_size),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_cut_module_is_no_view():
    module = make_module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for value in cut(module, LARGEST).state_dict().values():
        value.zero_()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_only_what_the_small_module_has_learns():
    module = make_module().requires_grad_(True)
    elastic_lite_residual.run(module, maps(), torch.Size((7, 7)), SMALLEST).pow(2).sum().backward()
    learned = module.conv1.weight.grad != 0
    assert learned.sum() == by_hand(module.requires_grad_(False)).conv1.weight.numel()
    assert not learned[:, :, 0].any()
    assert not learned[:4, 4:].any()


@pytest.mark.parametrize(
    "supernet_id",
    [
        "ofa_proxyless_d234_e346_k357_w0.35",  # where the kernel rule joins two stages
        "ofa_proxyless_d234_e346_k357_w1.3",
        "ofa_mbv3_d234_e346_k357_w1.0",
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_the_largest_modules_hold_those_that_a_candidate_asks_for(supernet_id, size):
    spec = SupernetSpec.parse(supernet_id)
    network = spec.network_config(spec.largest, 2)
    held = with_lite_residuals(network, LARGEST).blocks
    for whole, asked in zip(held, with_lite_residuals(network, size).blocks, strict=True):
        if whole.lite_residual is not None:
            assert smaller(whole.lite_residual, size) == asked.lite_residual
    assert sum(block.lite_residual is not None for block in held) == spec.num_dynamic_blocks
