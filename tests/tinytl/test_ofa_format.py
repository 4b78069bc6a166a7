import copy

import pytest

from search.spec import proxyless_mobile
from tinytl.config import with_lite_residuals, without_lite_residuals
from tinytl.errors import ConfigError
from tinytl.ofa_format import from_ofa, to_ofa


@pytest.fixture
def network():
    return proxyless_mobile()


def test_reads_back_what_it_writes(network):
    assert from_ofa(to_ofa(network)) == network
    assert from_ofa(to_ofa(with_lite_residuals(network))) == with_lite_residuals(network)


def test_zero_layers_keep_their_place(network):
    assert network.blocks[3] is None
    assert len(network.blocks) == 22
    assert len(network.active_blocks) == 20


def test_leaves_its_input_alone(network):
    config = to_ofa(network)
    before = copy.deepcopy(config)
    from_ofa(config)
    assert config == before


def test_lite_residuals_follow_the_nominal_resolution(network):
    """The published rule: kernel 5, smaller where the nominal map is; none in the first block."""
    modules = [block.lite_residual for block in with_lite_residuals(network).active_blocks]
    assert modules[0] is None
    assert [m.kernel_size for m in modules[1:]] == [5] * 15 + [3] * 4
    assert [m.stride for m in modules[1:]].count(2) == 4
    assert without_lite_residuals(with_lite_residuals(network)) == network


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), "ResNets", "'ResNets'"),
        (("first_conv", "act_func"), "tanh", "'tanh'"),
        (("first_conv", "groups"), 3, "groups must be 1 but got 3"),
        (("blocks", 2, "conv", "name"), "ReducedMBConvLayer", "'ReducedMBConvLayer'"),
        (("blocks", 2, "conv", "in_channels"), 99, "block 2 takes 99 channels"),
        (("classifier", "out_features"), 1, "num_classes must be at least 2 but got 1"),
        (("blocks", 1), None, "malformed"),
    ],
)
def test_refuses_what_it_does_not_understand(network, path, value, message):
    config = to_ofa(network)
    target = config
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        from_ofa(config)
