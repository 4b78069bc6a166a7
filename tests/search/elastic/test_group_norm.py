import random

import numpy as np
import pytest
import torch
from torch.nn.functional import group_norm

from search.elastic.group_norm import GroupNorm, standardize
from search.elastic.supernet import supernet_from_weights
from search.space.architecture import SupernetSpec
from search.space.candidates import sample_subnet
from tinytl.description.config import GROUP_NORM
from tinytl.description.method import Method
from tinytl.engine.network import build_network

FAMILIES = pytest.mark.parametrize(
    "supernet_id", ["ofa_proxyless_d23_e346_k357_w0.2_gn", "ofa_mbv3_d23_e34_k35_w0.2_gn_mine"]
)


def images(count=3, resolution=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, resolution, resolution, generator=generator)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def make_supernet(elastic_network):
    def make(supernet_id):
        weights = elastic_network(supernet_id).state_dict()
        return supernet_from_weights(SupernetSpec.parse(supernet_id), weights, source="test")

    return make


def random_norm(num_channels):
    generator = torch.Generator().manual_seed(2)
    norm = GroupNorm(num_channels, GROUP_NORM).requires_grad_(False)
    norm.weight.uniform_(0.5, 1.5, generator=generator)
    norm.bias.normal_(generator=generator)
    return norm


@pytest.mark.parametrize("num_channels", [8, 16, 40])
def test_fewer_channels_are_normalized_in_groups_of_eight(num_channels):
    norm = random_norm(40)
    x = 3 * torch.randn(2, num_channels, 5, 7, generator=torch.Generator().manual_seed(3)) + 1
    gain, bias = norm.weight[:num_channels], norm.bias[:num_channels]
    expected = group_norm(x, num_channels // 8, gain, bias, norm.eps)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(channels_last(x)), expected)
    groups = x.double().view(2, -1, 8, 5, 7).numpy()
    mean = groups.mean((2, 3, 4), keepdims=True)
    variance = ((groups - mean) ** 2).mean((2, 3, 4), keepdims=True)
    by_hand = ((groups - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
    by_hand = by_hand * gain.numpy()[:, None, None] + bias.numpy()[:, None, None]
    np.testing.assert_allclose(norm(x).numpy(), by_hand, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bias_learns_where_the_input_does_not(layout):
    """As in the stem, whose convolution is frozen; torch itself crashes with channels last."""
    norm = random_norm(16)
    norm.bias.requires_grad_(True)
    x = images(2, 6).repeat(1, 6, 1, 1)[:, :16].contiguous(memory_format=layout)
    (norm(x) ** 2).sum().backward()
    torch.testing.assert_close(norm.bias.grad, 2 * norm(x).sum((0, 2, 3)).detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_standardized_weights(layout):
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(4)) * 0.01 + 2
    found = standardize(weight.contiguous(memory_format=layout), 1e-5).double().numpy()
    rows = weight.double().numpy().reshape(6, -1)
    for row, standardized in zip(rows, found.reshape(6, -1), strict=True):
        expected = (row - row.mean()) / (np.std(row, ddof=1) + 1e-5)
        np.testing.assert_allclose(standardized, expected, atol=1e-3)


@FAMILIES
def test_every_subnet_is_its_static_network(supernet_id, make_supernet):
    supernet = make_supernet(supernet_id)
    spec = supernet.spec
    assert spec.norm == GROUP_NORM
    rng = random.Random(6)
    logits = []
    for subnet in [spec.largest, spec.smallest, *(sample_subnet(spec, rng) for _ in range(4))]:
        config, weights = supernet.extract(subnet)
        assert config.norm == GROUP_NORM
        network = build_network(config, Method.HEAD, weights, weight_bits=32)
        with torch.no_grad():
            logits.append(supernet.forward(subnet, images()))
            torch.testing.assert_close(network(images()), logits[-1], rtol=1e-4, atol=1e-4)
            last = supernet.forward(subnet, channels_last(images()))
            torch.testing.assert_close(last, logits[-1], rtol=1e-4, atol=1e-4)
    assert len({tuple(found.flatten().tolist()) for found in logits}) > 4


@FAMILIES
def test_a_subnet_depends_on_nothing_outside_it(supernet_id, make_supernet):
    supernet = make_supernet(supernet_id)
    block = supernet.network.blocks[2]
    before = supernet.forward(supernet.spec.smallest, images())
    mid = block.conv.point_linear.conv.conv.in_channels
    for layer in (block.conv.inverted_bottleneck, block.conv.depth_conv):
        layer.bn.bn.weight[mid // 2 + 8 :] = torch.nan
    assert torch.equal(supernet.forward(supernet.spec.smallest, images()), before)
    assert supernet.forward(supernet.spec.largest, images()).isnan().all()


@FAMILIES
def test_nothing_is_recalibrated(supernet_id, make_supernet):
    supernet = make_supernet(supernet_id)

    def batches():
        raise AssertionError("a batch was asked for")
        yield

    supernet.recalibrate(supernet.spec.smallest, batches())
