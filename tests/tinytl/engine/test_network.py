"""Networks against ofa's static ones, and what is trained."""

import pytest
import torch

from tinytl.description.config import largest_divisor, with_lite_residuals
from tinytl.description.method import Method
from tinytl.description.ofa_format import from_ofa
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.engine.ops.normalize import normalize
from tinytl.engine.step import Batch, run_step
from tinytl.errors import ConfigError

PROXYLESS = "ofa_proxyless_d234_e346_k357_w0.35"
MOBILENETV3 = "ofa_mbv3_d234_e346_k357_w1.0"
FAMILIES = pytest.mark.parametrize("family", [PROXYLESS, MOBILENETV3])
METHODS = pytest.mark.parametrize("method", list(Method))


def _images(num_images=2, resolution=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_images, 3, resolution, resolution, generator=generator)


def _build(static, method, weight_bits=32, seed=0):
    config = from_ofa(static.config)
    if method.uses_lite_residual:
        config = with_lite_residuals(config)
    generator = torch.Generator().manual_seed(seed)
    return build_network(
        config, method, static.state_dict(), weight_bits=weight_bits, generator=generator
    )


@FAMILIES
@METHODS
def test_forward_equals_ofas_static_network(static_network, family, method):
    static = static_network(family)
    network = _build(static, method)
    with torch.no_grad():
        expected = static(_images())
    torch.testing.assert_close(network(_images()), expected, rtol=1e-5, atol=1e-5)
    assert expected.abs().max() > 0.01


@FAMILIES
def test_eight_bit_weights_stay_close(static_network, family):
    static = static_network(family)
    with torch.no_grad():
        expected = static(_images())
        found = _build(static, Method.BIAS, weight_bits=8)(_images())
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Method.HEAD, {"classifier.weight", "classifier.bias"}),
        (Method.BIAS, {"bias"}),
        (Method.LITE_RESIDUAL, {"lite_residual"}),
        (Method.LITE_RESIDUAL_BIAS, {"bias", "lite_residual"}),
        (Method.NORM_HEAD, {"bias", "gain"}),
        (Method.FULL, {"bias", "gain", "weight"}),
    ],
)
def test_the_method_decides_what_is_trained(small_network, method, expected):
    network = build_network(small_network(lite=method.uses_lite_residual), method)
    trained = network.trained_parameters()
    kinds = set()
    for name in trained:
        if name.startswith("classifier."):
            kinds |= {name} & expected
        else:
            kinds.add("lite_residual" if "lite_residual" in name else name.rsplit(".", 1)[1])
    assert kinds == expected
    last_biases = [name for name in trained if name.endswith("final_bn.bias")]
    assert bool(last_biases) == (method is Method.LITE_RESIDUAL)


def test_fresh_lite_residuals_add_nothing(small_network):
    with_modules = build_network(
        small_network(), Method.LITE_RESIDUAL, generator=torch.Generator().manual_seed(0)
    )
    before = with_modules(_images())
    for block in with_modules.blocks:
        block.lite_residual = None
    torch.testing.assert_close(with_modules(_images()), before)


@pytest.mark.parametrize("resolution", [17, 32, 45])
@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL_BIAS, Method.FULL], ids=str)
@pytest.mark.parametrize("group_norm", [False, True])
@FAMILIES
def test_odd_and_tiny_maps_pass(small_network, family, group_norm, method, resolution):
    config = small_network(family, group_norm=group_norm, lite=method.uses_lite_residual)
    network = build_network(config, method)
    batch = Batch(images=_images(2, resolution), labels=torch.tensor([0, 4]))
    finite = []
    run_step(
        network, batch, Plan.whole(2), lambda p, gradient: finite.append(gradient.isfinite().all())
    )
    assert len(finite) == len(network.trained_parameters())
    assert all(finite)


@pytest.mark.parametrize("group_norm", [False, True])
def test_uint8_images_are_normalized_inside(small_network, group_norm):
    network = build_network(small_network(group_norm=group_norm), Method.BIAS)
    images = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(network(images), network(normalize(images)))


def test_a_network_normalizes_as_its_description_says(lite0):
    network = build_network(lite0(), Method.BIAS)
    images = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(network(images), network((images.float() - 127) / 128))


@METHODS
def test_group_norm_equals_ofas_network_with_standardized_weights(static_network, method):
    """ofa's own replacement of norms and convolutions."""
    static = static_network(PROXYLESS)
    static.set_bn_param(momentum=0.1, eps=1e-3, gn_channel_per_group=8, ws_eps=1e-5)
    state = {key: value for key, value in static.state_dict().items() if "running_" not in key}
    network = build_network(from_ofa(static.config), method, state, weight_bits=32)
    assert network.config.norm.kind == "group"
    with torch.no_grad():
        expected = static(_images())
    torch.testing.assert_close(network(_images()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("first_conv.conv.weight"), "lack the tensor 'first_conv.conv.weight'"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown tensors: \\['extra'\\]"),
        (
            lambda s: s.update({"first_conv.bn.bias": torch.zeros(1)}),
            r"shape \(16,\) but has \(1,\)",
        ),
        (
            lambda s: s.update({"first_conv.conv.weight": torch.zeros(16, 3, 1, 1)}),
            "must have the shape",
        ),
        (lambda s: s["first_conv.bn.weight"].fill_(float("nan")), "not finite"),
        (lambda s: s.update({"classifier.linear.weight": torch.zeros(5, 2)}), "must have the"),
    ],
)
def test_wrong_weights_are_refused(static_network, change, message):
    static = static_network(PROXYLESS)
    state = dict(static.state_dict())
    change(state)
    with pytest.raises(ConfigError, match=message):
        build_network(from_ofa(static.config), Method.BIAS, state)


def test_channel_rule():
    assert [largest_divisor(24, 8), largest_divisor(20, 8), largest_divisor(6, 8)] == [8, 5, 6]
