"""Networks against ofa's static ones: values, gradients, and what is trained."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tinytl.config import largest_divisor, with_lite_residuals
from tinytl.errors import ConfigError
from tinytl.network import Block, build_network
from tinytl.ofa_format import from_ofa
from tinytl.trainable import Method

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
        torch.testing.assert_close(network(_images()), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(network(_images()), expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 0.01


@FAMILIES
def test_eight_bit_weights_stay_close(static_network, family):
    static = static_network(family)
    with torch.no_grad():
        expected = static(_images())
        found = _build(static, Method.BIAS, weight_bits=8)(_images())
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.05


@FAMILIES
@METHODS
def test_gradients_equal_plain_autograd(static_network, family, method):
    """Every trained value's gradient, against the ofa modules with plain lite residuals."""
    static = static_network(family)
    network = _build(static, method)
    _shake_lite_residuals(network)
    reference = {f"classifier.{n}": p for n, p in static.classifier.linear.named_parameters()}
    reference |= _reference_parameters(static, network, method)
    assert network.trained_parameters().keys() <= reference.keys()
    _assert_equal_gradients(network, static, reference)


def _assert_equal_gradients(network, static, reference):
    """In double precision: weights were folded in single, so equal to about 1e-6."""
    network.double(), static.double()
    images, labels = _images().double(), torch.tensor([1, 3])
    F.cross_entropy(network(images), labels).backward()
    F.cross_entropy(static(images), labels).backward()
    for name, parameter in network.trained_parameters().items():
        expected = reference[name].grad
        scale = expected.abs().max().clamp(min=1e-6)
        assert (parameter.grad - expected).abs().max() / scale < 1e-4, name


class _PlainLiteResidual(nn.Module):
    """The published module in plain torch, around the block's main branch."""

    def __init__(self, main, module):
        super().__init__()
        config = module.config
        self.main = main
        self.pooling = nn.AvgPool2d(2, 2)
        self.conv1 = nn.Conv2d(
            config.in_channels,
            config.mid_channels,
            config.kernel_size,
            config.stride,
            config.kernel_size // 2,
            groups=2,
            bias=False,
        )
        self.bn1 = nn.GroupNorm(config.mid_channels // 8, config.mid_channels)
        self.conv2 = nn.Conv2d(config.mid_channels, config.out_channels, 1, bias=False)
        self.final_bn = nn.GroupNorm(config.out_channels // 8, config.out_channels)
        for name, parameter in module.named_parameters():
            self.get_parameter(name).data.copy_(parameter.data)

    def forward(self, x):
        y = self.main(x)
        z = self.pooling(x) if x.shape[-1] > 1 else x
        z = self.final_bn(self.conv2(F.relu(self.bn1(self.conv1(z)))))
        return y + F.interpolate(z, y.shape[2:], mode="bilinear", align_corners=False)


def _shake_lite_residuals(network):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for block in network.blocks:
            if block.lite_residual is not None:
                gain = block.lite_residual.final_bn.weight
                gain.uniform_(0.2, 1, generator=generator)


def _reference_parameters(static, network, method):
    """Plain parameters by our names; puts plain lite residuals into the static network."""
    found = {}

    def norm(name, bn):
        found[f"{name}.bias"], found[f"{name}.gain"] = bn.bias, bn.weight

    def unit(name, layers):
        norm(name, layers.bn)
        found[f"{name}.weight"] = layers.conv.weight

    unit("first_conv", static.first_conv)
    for index, (block, ours) in enumerate(zip(static.blocks, network.blocks, strict=True)):
        conv = block.conv
        if conv.inverted_bottleneck is not None:
            unit(f"blocks.{index}.expand", conv.inverted_bottleneck)
        unit(f"blocks.{index}.depthwise", conv.depth_conv)
        if hasattr(conv.depth_conv, "se"):
            for ours_name, layer in (
                ("reduce", conv.depth_conv.se.fc.reduce),
                ("expand", conv.depth_conv.se.fc.expand),
            ):
                prefix = f"blocks.{index}.squeeze_excite.{ours_name}"
                found[f"{prefix}.weight"], found[f"{prefix}.bias"] = layer.weight, layer.bias
        unit(f"blocks.{index}.project", conv.point_linear)
        if isinstance(ours, Block) and ours.lite_residual is not None:
            block.conv = _PlainLiteResidual(conv, ours.lite_residual)
            for name, _ in ours.lite_residual.named_parameters():
                found[f"blocks.{index}.lite_residual.{name}"] = block.conv.get_parameter(name)
    if hasattr(static, "final_expand_layer"):
        unit("final_expand", static.final_expand_layer)
        found["feature_mix.weight"] = static.feature_mix_layer.conv.weight
    else:
        unit("feature_mix", static.feature_mix_layer)
    return found


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
    before = with_modules(_images()).detach()
    for block in with_modules.blocks:
        block.lite_residual = None
    torch.testing.assert_close(with_modules(_images()), before)


@pytest.mark.parametrize("resolution", [32, 40, 48, 100])
def test_odd_and_tiny_maps_pass(small_network, resolution):
    network = build_network(small_network(), Method.LITE_RESIDUAL_BIAS)
    network(_images(1, resolution)).sum().backward()


@pytest.mark.parametrize("group_norm", [False, True])
def test_uint8_images_are_normalized_inside(small_network, group_norm):
    from tinytl.data import normalize

    network = build_network(small_network(group_norm=group_norm), Method.BIAS)
    images = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    torch.testing.assert_close(network(images), network(normalize(images)))


@pytest.mark.parametrize("method", [Method.BIAS, Method.NORM_HEAD, Method.FULL], ids=str)
def test_group_norm_equals_ofas_network_with_standardized_weights(static_network, method):
    """ofa's own replacement of norms and convolutions, values and gradients."""
    static = static_network(PROXYLESS)
    static.set_bn_param(momentum=0.1, eps=1e-3, gn_channel_per_group=8, ws_eps=1e-5)
    state = {key: value for key, value in static.state_dict().items() if "running_" not in key}
    network = build_network(from_ofa(static.config), method, state, weight_bits=32)
    assert network.config.norm.kind == "group"
    torch.testing.assert_close(network(_images()), static(_images()), rtol=1e-4, atol=1e-5)
    reference = {f"classifier.{n}": p for n, p in static.classifier.linear.named_parameters()}
    reference |= _reference_parameters(static, network, method)
    _assert_equal_gradients(network, static, reference)


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
