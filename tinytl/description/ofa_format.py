"""Reads and writes the ofa package's own `config` dicts, so that published net.config files load.

Also reads the TinyTL release's variant, where a block's convolution is wrapped in a
LiteResidualModule. A block whose convolution is a zero layer keeps its place as None.

Two entries are ours: `padding`, and `normalization` of the input. They are there only where they
differ from what ofa's networks have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from tinytl.description.config import (
    IMAGENET,
    Activation,
    BlockConfig,
    ConvConfig,
    Family,
    LiteResidualConfig,
    NetworkConfig,
    Normalization,
    NormConfig,
    check_network,
)
from tinytl.errors import ConfigError

_FAMILIES: dict[str, Family] = {"ProxylessNASNets": "proxyless", "MobileNetV3": "mobilenetv3"}
_DEFAULT_EPS: dict[Family, float] = {"proxyless": 1e-3, "mobilenetv3": 1e-5}
_MB_CONV_NAMES = {"MBConvLayer", "MBInvertedConvLayer"}
_ACTIVATIONS = {"relu", "relu6", "h_swish"}


def from_ofa(config: Mapping[str, Any]) -> NetworkConfig:
    """The network that an ofa static `config` dict describes. Raises ConfigError; reads only."""
    try:
        return check_network(_read_network(config))
    except ConfigError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"network config is malformed: {error!r}") from error


def _read_network(config: Mapping[str, Any]) -> NetworkConfig:
    name = config["name"]
    if name not in _FAMILIES:
        raise ConfigError(f"network name must be one of {sorted(_FAMILIES)} but got {name!r}")
    family = _FAMILIES[name]
    classifier = config["classifier"]
    final_expand = config.get("final_expand_layer")
    return NetworkConfig(
        family=family,
        norm=_read_norm(config.get("bn"), family),
        first_conv=_read_conv(config["first_conv"]),
        blocks=tuple(_read_block(block) for block in config["blocks"]),
        final_expand=None if final_expand is None else _read_conv(final_expand),
        feature_mix=_read_conv(config["feature_mix_layer"]),
        num_classes=classifier["out_features"],
        dropout_rate=classifier.get("dropout_rate", 0.0),
        padding=config.get("padding", NetworkConfig.padding),
        normalization=_read_normalization(config.get("normalization")),
    )


def _read_normalization(values: Mapping[str, Any] | None) -> Normalization:
    """From JSON's lists `mean` and `std`; None stands for ImageNet's."""
    if values is None:
        return IMAGENET
    return Normalization(mean=tuple(values["mean"]), std=tuple(values["std"]))


def _read_norm(bn: Mapping[str, Any] | None, family: Family) -> NormConfig:
    if bn is None:
        return NormConfig(eps=_DEFAULT_EPS[family])
    channels_per_group = bn.get("gn_channel_per_group")
    kind: Literal["batch", "group"] = "batch" if channels_per_group is None else "group"
    return NormConfig(
        kind=kind,
        eps=bn["eps"],
        momentum=bn.get("momentum"),
        channels_per_group=channels_per_group or NormConfig.channels_per_group,
        weight_standardization_eps=bn.get("ws_eps"),
    )


def _read_activation(value: str | None) -> Activation | None:
    if value is None or value == "none":
        return None
    if value not in _ACTIVATIONS:
        raise ConfigError(f"act_func must be one of {sorted(_ACTIVATIONS)} but got {value!r}")
    return cast(Activation, value)


def _read_conv(layer: Mapping[str, Any]) -> ConvConfig:
    plain = {"name": "ConvLayer", "dilation": 1, "groups": 1, "bias": False, "use_se": False}
    for key, expected in plain.items():
        if layer.get(key, expected) != expected:
            raise ConfigError(f"layer {key} must be {expected!r} but got {layer[key]!r}")
    return ConvConfig(
        in_channels=layer["in_channels"],
        out_channels=layer["out_channels"],
        kernel_size=layer["kernel_size"],
        stride=layer.get("stride", 1),
        has_norm=layer.get("use_bn", True),
        activation=_read_activation(layer.get("act_func")),
    )


def _read_block(block: Mapping[str, Any]) -> BlockConfig | None:
    conv = block["conv"] if "conv" in block else block["mobile_inverted_conv"]
    shortcut = block["shortcut"]
    if shortcut is not None and shortcut["name"] != "IdentityLayer":
        raise ConfigError(f"shortcut must be an IdentityLayer but got {shortcut['name']!r}")
    if conv is None or conv["name"] == "ZeroLayer":
        return None
    lite_residual = None
    if conv["name"] == "LiteResidualModule":
        lite_residual = _read_lite_residual(conv["lite_residual"])
        conv = conv["main"]
    if conv["name"] not in _MB_CONV_NAMES:
        raise ConfigError(f"block layer must be an MBConvLayer but got {conv['name']!r}")
    if conv.get("groups") is not None:
        raise ConfigError(f"block groups must be null but got {conv['groups']!r}")
    expand_ratio = conv["expand_ratio"]
    mid_channels = conv.get("mid_channels")
    return BlockConfig(
        in_channels=conv["in_channels"],
        mid_channels=mid_channels or round(conv["in_channels"] * expand_ratio),
        out_channels=conv["out_channels"],
        kernel_size=conv["kernel_size"],
        stride=conv["stride"],
        has_expansion=expand_ratio != 1,
        activation=_read_activation(conv.get("act_func", "relu6")) or "relu6",
        squeeze_excite=conv.get("use_se", False),
        shortcut=shortcut is not None,
        lite_residual=lite_residual,
    )


def _read_lite_residual(module: Mapping[str, Any]) -> LiteResidualConfig:
    for key, expected in {"act_func": "relu", "upsample_type": "bilinear"}.items():
        if module.get(key, expected) != expected:
            raise ConfigError(f"lite residual {key} must be {expected!r} but got {module[key]!r}")
    downsample_ratio = module["downsample_ratio"]
    return LiteResidualConfig(
        in_channels=module["in_channels"],
        out_channels=module["out_channels"],
        kernel_size=1 if downsample_ratio is None else module["kernel_size"],
        groups=module["n_groups"],
        expand=module["expand"],
        downsample_ratio=downsample_ratio,
        stride=module["stride"],
    )


def to_ofa(network: NetworkConfig) -> dict[str, Any]:
    """The ofa `config` dict of a network; from_ofa reads it back to an equal one."""
    norm = network.norm
    bn: dict[str, Any] = {
        "momentum": norm.momentum,
        "eps": norm.eps,
        "ws_eps": norm.weight_standardization_eps,
    }
    if norm.kind == "group":
        bn["gn_channel_per_group"] = norm.channels_per_group
    layers: dict[str, Any] = {
        "first_conv": _write_conv(network.first_conv),
        "blocks": [_write_block(block) for block in network.blocks],
    }
    if network.final_expand is not None:
        layers["final_expand_layer"] = _write_conv(network.final_expand)
    more: dict[str, Any] = {}
    if network.padding != NetworkConfig.padding:
        more["padding"] = network.padding
    if network.normalization != IMAGENET:
        more["normalization"] = {
            "mean": list(network.normalization.mean),
            "std": list(network.normalization.std),
        }
    names = {family: name for name, family in _FAMILIES.items()}
    return {
        "name": names[network.family],
        "bn": bn,
        **layers,
        "feature_mix_layer": _write_conv(network.feature_mix),
        "classifier": {
            "name": "LinearLayer",
            "in_features": network.feature_mix.out_channels,
            "out_features": network.num_classes,
            "bias": True,
            "use_bn": False,
            "act_func": None,
            "dropout_rate": network.dropout_rate,
            "ops_order": "weight_bn_act",
        },
        **more,
    }


def _write_conv(conv: ConvConfig) -> dict[str, Any]:
    return {
        "name": "ConvLayer",
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "dilation": 1,
        "groups": 1,
        "bias": False,
        "has_shuffle": False,
        "use_se": False,
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "use_bn": conv.has_norm,
        "act_func": conv.activation,
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    }


def _write_block(block: BlockConfig | None) -> dict[str, Any]:
    if block is None:
        return {"name": "ResidualBlock", "conv": {"name": "ZeroLayer"}, "shortcut": _IDENTITY}
    # ofa reads a ratio of 1 as "no expansion"; where mid_channels is given, it decides
    ratio = 1 if not block.has_expansion else max(2, block.mid_channels / block.in_channels)
    conv: dict[str, Any] = {
        "name": "MBConvLayer",
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "expand_ratio": ratio,
        "mid_channels": block.mid_channels if block.has_expansion else None,
        "act_func": block.activation,
        "use_se": block.squeeze_excite,
        "groups": None,
    }
    module = block.lite_residual
    if module is not None:
        lite_residual = {
            "in_channels": module.in_channels,
            "out_channels": module.out_channels,
            "expand": module.expand,
            "kernel_size": module.kernel_size,
            "act_func": "relu",
            "n_groups": module.groups,
            "downsample_ratio": module.downsample_ratio,
            "upsample_type": "bilinear",
            "stride": module.stride,
        }
        conv = {"name": "LiteResidualModule", "main": conv, "lite_residual": lite_residual}
    shortcut = None
    if block.shortcut:
        shortcut = {**_IDENTITY, "in_channels": block.in_channels}
        shortcut["out_channels"] = block.out_channels
    return {"name": "ResidualBlock", "conv": conv, "shortcut": shortcut}


_IDENTITY: dict[str, Any] = {
    "name": "IdentityLayer",
    "in_channels": 0,
    "out_channels": 0,
    "use_bn": False,
    "act_func": None,
    "dropout_rate": 0,
    "ops_order": "weight_bn_act",
}
