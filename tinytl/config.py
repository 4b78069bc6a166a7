"""What a network is, in plain Python: the description that pricing and building share.

No torch here: the web process prices networks without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tinytl.errors import ConfigError

Family = Literal["proxyless", "mobilenetv3"]
Activation = Literal["relu", "relu6", "h_swish"]

CHANNEL_DIVISOR = 8
"""Channel counts are rounded to multiples of this (as in the ofa package)."""

GROUP_NORM_CHANNELS = 8
"""Channels per group of every group norm (TinyTL paper, section 4.1)."""


def make_divisible(value: float, divisor: int = CHANNEL_DIVISOR) -> int:
    """Nearest multiple of divisor that is not more than 10% below value (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of number that is not above at_most."""
    candidate = min(number, at_most)
    while number % candidate:
        candidate -= 1
    return candidate


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """Normalization of the main branch.

    kind "batch": frozen statistics, folded into the convolutions. kind "group": group norm,
    with weight standardization where weight_standardization_eps is set.
    """

    kind: Literal["batch", "group"] = "batch"
    eps: float = 1e-3
    momentum: float | None = 0.1
    channels_per_group: int = GROUP_NORM_CHANNELS
    weight_standardization_eps: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConvConfig:
    """A convolution, its norm (with has_norm) and its activation."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    has_norm: bool = True
    activation: Activation | None = None


@dataclass(frozen=True, kw_only=True)
class LiteResidualSize:
    """How large the lite residual modules of a network are (TinyTL paper, section 3.2)."""

    groups: int = 2
    max_kernel_size: int = 5
    expand: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LiteResidualConfig:
    """One lite residual module: pool, group convolution, norm, ReLU, 1x1 convolution, norm.

    downsample_ratio None pools globally; the output is then broadcast, else upsampled.
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    groups: int = 2
    expand: float = 1.0
    downsample_ratio: int | None = 2
    stride: int = 1

    @property
    def mid_channels(self) -> int:
        return make_divisible(int(self.in_channels * self.expand))


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """A mobile inverted residual block: 1x1 expand, depthwise, 1x1 project.

    The expansion is absent where has_expansion is false; squeeze-and-excite follows the
    depthwise convolution; lite_residual is a side branch from the block's input to its output.
    """

    in_channels: int
    mid_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    has_expansion: bool
    activation: Activation
    squeeze_excite: bool = False
    shortcut: bool = False
    lite_residual: LiteResidualConfig | None = None

    @property
    def squeeze_channels(self) -> int:
        return make_divisible(self.mid_channels // 4)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A whole network of the ProxylessNAS or MobileNetV3 family.

    blocks holds None where the published description has a skipped (zero) layer with an
    identity shortcut: it computes nothing, but keeps the numbering of the weights.
    final_expand exists in MobileNetV3 only, where feature_mix works on pooled features.
    """

    family: Family
    norm: NormConfig
    first_conv: ConvConfig
    blocks: tuple[BlockConfig | None, ...]
    final_expand: ConvConfig | None
    feature_mix: ConvConfig
    num_classes: int
    dropout_rate: float = 0.0

    @property
    def active_blocks(self) -> tuple[BlockConfig, ...]:
        return tuple(block for block in self.blocks if block is not None)

    @property
    def has_lite_residual(self) -> bool:
        return any(block.lite_residual for block in self.active_blocks)


NOMINAL_RESOLUTION = 128
"""Feature map size that the kernel rule of lite residuals assumes at the second block."""

_STAGE_STRIDES = {"proxyless": (2, 2, 2, 1, 2, 1), "mobilenetv3": (2, 2, 2, 1, 2)}


def with_lite_residuals(
    network: NetworkConfig, size: LiteResidualSize | None = None
) -> NetworkConfig:
    """Add a lite residual module to every block but the first.

    The kernel rule is the published code's: it follows a nominal map of 128 pixels, whatever
    the job's resolution, through the stages' strides. The published code knows the Proxyless
    family only and raises for MobileNetV3; here MobileNetV3 gets modules by the same rule.
    """
    if size is None:
        size = LiteResidualSize()
    modules: dict[int, LiteResidualConfig] = {}
    resolution = NOMINAL_RESOLUTION
    for stage, stride in zip(_stages(network), _STAGE_STRIDES[network.family], strict=False):
        for position, index in enumerate(stage):
            block = network.blocks[index]
            if block is None:
                continue
            module_stride = stride if position == 0 else 1
            pooled = max(1, resolution // 2)
            resolution //= module_stride
            kernel_size = 1 if pooled == 1 else size.max_kernel_size
            while pooled < kernel_size:
                kernel_size -= 2
            modules[index] = LiteResidualConfig(
                in_channels=block.in_channels,
                out_channels=block.out_channels,
                kernel_size=kernel_size,
                groups=size.groups,
                expand=size.expand,
                downsample_ratio=None if pooled == 1 else 2,
                stride=module_stride,
            )
    blocks = tuple(
        None if block is None else replace(block, lite_residual=modules.get(index))
        for index, block in enumerate(network.blocks)
    )
    return replace(network, blocks=blocks)


def without_lite_residuals(network: NetworkConfig) -> NetworkConfig:
    """The same network with no lite residual modules."""
    blocks = tuple(
        None if block is None else replace(block, lite_residual=None) for block in network.blocks
    )
    return replace(network, blocks=blocks)


def _stages(network: NetworkConfig) -> Sequence[Sequence[int]]:
    """Block indices by stage, the first block left out; a block without shortcut begins one."""
    stages: list[list[int]] = []
    for index, block in enumerate(network.blocks[1:], start=1):
        if not stages or (block is not None and not block.shortcut):
            stages.append([])
        stages[-1].append(index)
    return stages


def check_network(network: NetworkConfig) -> NetworkConfig:
    """Return the network, or raise ConfigError where its layers don't fit together."""
    channels = network.first_conv.out_channels
    for index, block in enumerate(network.blocks):
        if block is None:
            continue
        if block.in_channels != channels:
            raise ConfigError(
                f"block {index} takes {block.in_channels} channels, but gets {channels}"
            )
        if block.shortcut and (block.stride != 1 or block.in_channels != block.out_channels):
            raise ConfigError(
                f"block {index} has a shortcut, but its stride is {block.stride} and its "
                f"channels go from {block.in_channels} to {block.out_channels}"
            )
        channels = block.out_channels
    for name, layer in (("final_expand", network.final_expand), ("mix", network.feature_mix)):
        if layer is not None:
            if layer.in_channels != channels:
                raise ConfigError(
                    f"{name} layer takes {layer.in_channels} channels, but gets {channels}"
                )
            channels = layer.out_channels
    if network.num_classes < 2:
        raise ConfigError(f"num_classes must be at least 2 but got {network.num_classes}")
    return network
