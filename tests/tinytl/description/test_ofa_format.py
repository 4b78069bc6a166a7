import copy
import json

import pytest

from search.space.architecture import SupernetSpec
from search.space.spec import proxyless_mobile
from tinytl.description.config import with_lite_residuals, without_lite_residuals
from tinytl.description.ofa_format import from_ofa, to_ofa
from tinytl.errors import ConfigError


@pytest.fixture
def network():
    return proxyless_mobile()


def test_reads_back_what_it_writes(network):
    assert from_ofa(to_ofa(network)) == network
    assert from_ofa(to_ofa(with_lite_residuals(network))) == with_lite_residuals(network)


def test_padding_and_normalization_are_written_where_ofa_has_others(network, lite0):
    assert not {"padding", "normalization"} & to_ofa(network).keys()
    config = json.loads(json.dumps(to_ofa(lite0())))
    assert config["padding"] == "same"
    assert config["normalization"] == {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}
    assert from_ofa(config) == lite0()


@pytest.mark.parametrize(
    "change",
    [
        {"padding": "reflect"},
        {"padding": None},
        {"normalization": {"mean": [0.5], "std": [1.0]}},
        {"normalization": 3},
        {"normalization": {"mean": None, "std": None}},
    ],
)
def test_another_padding_or_normalization_is_refused(network, change):
    with pytest.raises(ConfigError):
        from_ofa(to_ofa(network) | change)


def test_zero_layers_keep_their_place(network):
    assert network.blocks[3] is None
    assert len(network.blocks) == 22
    assert len(network.active_blocks) == 20


def test_leaves_its_input_alone(network):
    config = to_ofa(network)
    before = copy.deepcopy(config)
    from_ofa(config)
    assert config == before


@pytest.mark.parametrize("config", [None, [], {}, {"name": []}, {"name": "ProxylessNASNets"}])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(ConfigError):
        from_ofa(config)


def test_blocks_without_end_are_refused(network):
    config = to_ofa(network)
    config["blocks"] *= 20
    with pytest.raises(ConfigError, match="at most 256 blocks but got"):
        from_ofa(config)


def test_an_infinite_expansion_is_refused(network):
    config = to_ofa(network)
    config["blocks"][2]["conv"].update(expand_ratio=float("inf"), mid_channels=None)
    with pytest.raises(ConfigError, match="malformed"):
        from_ofa(config)


def test_every_lite_residual_strides_as_its_block():
    """Also at width 0.35, where the published grouping merges two stages."""
    spec = SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35")
    network = with_lite_residuals(spec.network_config(spec.smallest, 5))
    blocks = network.active_blocks[1:]
    assert [b.lite_residual.stride for b in blocks] == [b.stride for b in blocks]
    assert [b.lite_residual.kernel_size for b in blocks] == [5] * 11


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
        (("first_conv", "use_bn"), False, "first_conv must have a norm"),
        (("blocks", 2, "conv", "name"), "ReducedMBConvLayer", "'ReducedMBConvLayer'"),
        (("blocks", 1, "conv", "in_channels"), 24, "block 1 takes 24 channels, but gets 16"),
        (("blocks", 2, "conv", "in_channels"), 24, "block 2 has a shortcut"),
        (("blocks", 2, "conv", "mid_channels"), 12, "mid_channels must be a multiple of 8"),
        (("blocks", 2, "conv", "stride"), 3, "stride must be 1 or 2 but got 3"),
        (("blocks", 2, "conv", "kernel_size"), 4, "kernel_size must be odd"),
        (("bn", "eps"), -1, "eps must be between 0 and 1 but got -1"),
        (
            ("classifier", "out_features"),
            1,
            "num_classes must be an integer .* got 1",
        ),
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
