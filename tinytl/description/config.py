"""What a network is, in plain Python: the description that pricing and building share.

No torch here: the web process prices networks without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from tinytl.errors import ConfigError

Family = Literal["proxyless", "mobilenetv3"]
Activation = Literal["relu", "relu6", "h_swish"]
Padding = Literal["symmetric", "same"]
"""Of convolutions: kernel_size // 2 on every side, as in PyTorch, or TensorFlow's "same"."""

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


GROUP_NORM = NormConfig(kind="group", weight_standardization_eps=1e-5)
"""The paper's variant (section 4.1), for networks that were pretrained with it."""


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Of images on the scale of 0 to 1, by colour: what is taken off and what divides the rest."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's images, which most networks were trained with."""


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

    downsample_ratio None pools globally; the output is then broadcast, else upsampled. Its
    convolution is padded as the paper's, kernel_size // 2 on every side, whatever the network's
    padding: it comes with tinyfit, not with the network.
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

    def __post_init__(self) -> None:
        """Blocks are the keys that costs are found by, so they are hashed once, by a few integers:
        whatever else differs, equality tells apart."""
        numbers = (self.in_channels, self.mid_channels, self.out_channels, self.kernel_size)
        object.__setattr__(self, "_hash", hash((*numbers, self.stride)))

    def __hash__(self) -> int:
        found: int = self._hash  # type: ignore[attr-defined]
        return found

    @property
    def squeeze_channels(self) -> int:
        return make_divisible(self.mid_channels // 4)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A whole network of the ProxylessNAS or MobileNetV3 family.

    blocks holds None where the published description has a skipped (zero) layer with an
    identity shortcut: it computes nothing, but keeps the numbering of the weights.
    final_expand exists in MobileNetV3 only, where feature_mix works on pooled features.
    padding: of all convolutions but the lite residual modules'.
    """

    family: Family
    norm: NormConfig
    first_conv: ConvConfig
    blocks: tuple[BlockConfig | None, ...]
    final_expand: ConvConfig | None
    feature_mix: ConvConfig
    num_classes: int
    dropout_rate: float = 0.0
    padding: Padding = "symmetric"
    normalization: Normalization = IMAGENET

    @property
    def active_blocks(self) -> tuple[BlockConfig, ...]:
        return tuple(block for block in self.blocks if block is not None)

    @property
    def part_stages(self) -> tuple[int, ...]:
        """The stage of each part that a map passes: the stem, the active blocks, the tail.

        A stage begins after each part that halves the map, the stem apart: its blocks get maps of
        one size. Stages count from 0.
        """
        stages, stage = [0], 0
        for block in self.active_blocks:
            stages.append(stage)
            stage += block.stride - 1
        return (*stages, stage)

    @property
    def has_lite_residual(self) -> bool:
        return any(block is not None and block.lite_residual for block in self.blocks)


_MAX_KERNEL_SIZE = 31
_MAX_CHANNELS = 1 << 16
_MAX_EXPAND = 16
_MAX_BLOCKS = 256
_MAX_KNOWN_BLOCKS = 1 << 12

NOMINAL_RESOLUTION = 128
"""Feature map size that the kernel rule of lite residuals assumes at the second block."""

_STAGE_STRIDES = {"proxyless": (2, 2, 2, 1, 2, 1), "mobilenetv3": (2, 2, 2, 1, 2)}


def with_lite_residuals(
    network: NetworkConfig, size: LiteResidualSize | None = None
) -> NetworkConfig:
    """Add a lite residual module to every block but the first.

    The kernel rule is the published code's: it follows a nominal map of 128 pixels, whatever
    the job's resolution, through the stages. It takes a block with a shortcut for part of the
    stage before, so where two stages are equally wide (width 0.35) later kernels are larger.
    The published code gives the modules those counted strides too; here a module has its
    block's. That code knows the Proxyless family only and raises for MobileNetV3; here
    MobileNetV3 gets modules by the same rule.
    """
    with_module = _module_adder(size or LiteResidualSize())
    strides = iter(_STAGE_STRIDES[network.family])
    if network.has_lite_residual:
        network = without_lite_residuals(network)
    blocks = [network.blocks[0]]
    resolution, stride, stage_begins = NOMINAL_RESOLUTION, next(strides), True
    for block in network.blocks[1:]:
        if block is not None and not block.shortcut and len(blocks) > 1:
            stride, stage_begins = next(strides, 0), True
        if block is not None and stride:
            block = with_module(block, max(1, resolution // 2))
            resolution //= stride if stage_begins else 1
        blocks.append(block)
        stage_begins = False
    return _with_blocks(network, blocks)


def without_lite_residuals(network: NetworkConfig) -> NetworkConfig:
    """The same network with no lite residual modules."""
    return _with_blocks(network, [_without_module(block) for block in network.blocks])


def _without_module(block: BlockConfig | None) -> BlockConfig | None:
    if block is None or block.lite_residual is None:
        return block
    return replace(block, lite_residual=None)


@lru_cache(maxsize=64)
def _module_adder(size: LiteResidualSize) -> Callable[[BlockConfig, int], BlockConfig]:
    """Adds a module of this size to a block, given its nominal pooled map.

    The same block comes back for the same block, so that its costs are found by identity.
    """
    known: dict[tuple[int, int], tuple[BlockConfig, BlockConfig]] = {}

    def with_module(block: BlockConfig, pooled: int) -> BlockConfig:
        found = known.get((id(block), pooled))
        if found is None:
            if len(known) >= _MAX_KNOWN_BLOCKS:
                known.clear()
            # the block is held too, so that no other takes its identity
            found = known[id(block), pooled] = block, _with_module(block, pooled, size)
        return found[1]

    return with_module


def _with_module(block: BlockConfig, pooled: int, size: LiteResidualSize) -> BlockConfig:
    kernel_size = 1 if pooled == 1 else size.max_kernel_size
    while pooled < kernel_size:
        kernel_size -= 2
    module = LiteResidualConfig(
        in_channels=block.in_channels,
        out_channels=block.out_channels,
        kernel_size=kernel_size,
        groups=size.groups,
        expand=size.expand,
        downsample_ratio=None if pooled == 1 else 2,
        stride=block.stride,
    )
    return replace(block, lite_residual=module)


def _with_blocks(network: NetworkConfig, blocks: Sequence[BlockConfig | None]) -> NetworkConfig:
    """dataclasses.replace, without its price: a search does this for every candidate."""
    return NetworkConfig(
        family=network.family,
        norm=network.norm,
        first_conv=network.first_conv,
        blocks=tuple(blocks),
        final_expand=network.final_expand,
        feature_mix=network.feature_mix,
        num_classes=network.num_classes,
        dropout_rate=network.dropout_rate,
        padding=network.padding,
        normalization=network.normalization,
    )


def conv_size(size: int, kernel_size: int, stride: int) -> int:
    """Output size of a convolution of odd kernel_size: size / stride, rounded up, with either
    padding."""
    return (size + 2 * (kernel_size // 2) - kernel_size) // stride + 1


def conv_pads(padding: Padding, kernel_size: int, stride: int, size: int) -> tuple[int, int]:
    """Zeros before and after a side of so many pixels. They differ where "same" pads an even side
    at stride 2: then there is one less before it."""
    if padding == "symmetric":
        return kernel_size // 2, kernel_size // 2
    out_size = conv_size(size, kernel_size, stride)
    total = max((out_size - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def check_network(network: NetworkConfig) -> NetworkConfig:
    """Return the network, or raise ConfigError where a value or the layers' fit is wrong."""
    _check_values(network)
    channels = 3
    for name, layer in _layers(network):
        if layer.in_channels != channels:
            raise ConfigError(f"{name} takes {layer.in_channels} channels, but gets {channels}")
        channels = layer.out_channels
    return network


def _layers(network: NetworkConfig) -> Iterator[tuple[str, ConvConfig | BlockConfig]]:
    yield "first_conv", network.first_conv
    for index, block in enumerate(network.blocks):
        if block is not None:
            yield f"block {index}", block
    if network.final_expand is not None:
        yield "final_expand", network.final_expand
    yield "feature_mix", network.feature_mix


def _check_values(network: NetworkConfig) -> None:
    norm = network.norm
    if len(network.blocks) > _MAX_BLOCKS:
        raise ConfigError(
            f"a network must have at most {_MAX_BLOCKS} blocks but got {len(network.blocks)}"
        )
    _check_integer("num_classes", network.num_classes, 2)
    _check_integer("channels per group", norm.channels_per_group, 1)
    for name, eps in (("eps", norm.eps), ("ws_eps", norm.weight_standardization_eps)):
        if eps is not None and not (isinstance(eps, int | float) and 0 < eps < 1):
            raise ConfigError(f"norm {name} must be between 0 and 1 but got {eps!r}")
    rate = network.dropout_rate
    if not (isinstance(rate, int | float) and 0 <= rate < 1):
        raise ConfigError(f"dropout_rate must be at least 0 and below 1 but got {rate!r}")
    _check_input(network)
    if not network.first_conv.has_norm:
        raise ConfigError("first_conv must have a norm (use_bn)")
    for name, layer in _layers(network):
        _check_kernel(name, layer.kernel_size, layer.stride)
        _check_channels(f"{name} out_channels", layer.out_channels)
        if isinstance(layer, BlockConfig):
            _check_block(name, layer)


def _check_input(network: NetworkConfig) -> None:
    if network.padding not in get_args(Padding):
        raise ConfigError(
            f"padding must be one of {list(get_args(Padding))} but got {network.padding!r}"
        )
    normalization = network.normalization
    for name, values in (("mean", normalization.mean), ("std", normalization.std)):
        are_numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
        if not are_numbers or len(values) != 3:
            raise ConfigError(f"normalization {name} must be 3 numbers but got {values!r}")
    if min(normalization.std) <= 0:
        raise ConfigError(f"normalization std must be above 0 but got {normalization.std!r}")


def _check_block(name: str, block: BlockConfig) -> None:
    _check_channels(f"{name} mid_channels", block.mid_channels)
    if not block.has_expansion and block.mid_channels != block.in_channels:
        raise ConfigError(
            f"{name} has no expansion, but {block.mid_channels} mid channels for "
            f"{block.in_channels} inputs"
        )
    if block.shortcut and (block.stride != 1 or block.in_channels != block.out_channels):
        raise ConfigError(
            f"{name} has a shortcut, but its stride is {block.stride} and its "
            f"channels go from {block.in_channels} to {block.out_channels}"
        )
    module = block.lite_residual
    if module is None:
        return
    _check_kernel(f"{name} lite residual", module.kernel_size, module.stride)
    if module.downsample_ratio is not None:
        _check_integer(f"{name} lite residual downsample_ratio", module.downsample_ratio, 1)
    _check_integer(f"{name} lite residual groups", module.groups, 1)
    if not (isinstance(module.expand, int | float) and 0 < module.expand <= _MAX_EXPAND):
        raise ConfigError(
            f"{name} lite residual expand must be above 0 and at most {_MAX_EXPAND} "
            f"but got {module.expand!r}"
        )
    ends = (module.in_channels, module.out_channels)
    if ends != (block.in_channels, block.out_channels):
        raise ConfigError(
            f"{name} goes from {block.in_channels} to {block.out_channels} channels, but its "
            f"lite residual from {module.in_channels} to {module.out_channels}"
        )
    if module.in_channels % module.groups or module.mid_channels % module.groups:
        raise ConfigError(
            f"{name} lite residual has {module.groups} groups for {module.in_channels} inputs "
            f"and {module.mid_channels} mid channels, which they must divide"
        )


def _check_kernel(name: str, kernel_size: int, stride: int) -> None:
    _check_integer(f"{name} kernel_size", kernel_size, 1)
    if kernel_size % 2 == 0 or kernel_size > _MAX_KERNEL_SIZE:
        raise ConfigError(
            f"{name} kernel_size must be odd and at most {_MAX_KERNEL_SIZE} but got {kernel_size}"
        )
    if isinstance(stride, bool) or stride not in (1, 2):
        raise ConfigError(f"{name} stride must be 1 or 2 but got {stride!r}")


def _check_channels(name: str, channels: int) -> None:
    """Bit masks hold eight channels to a byte."""
    _check_integer(name, channels, CHANNEL_DIVISOR)
    if channels % CHANNEL_DIVISOR or channels > _MAX_CHANNELS:
        raise ConfigError(
            f"{name} must be a multiple of {CHANNEL_DIVISOR} up to {_MAX_CHANNELS} "
            f"but got {channels}"
        )


def _check_integer(name: str, value: int, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ConfigError(f"{name} must be an integer of at least {at_least} but got {value!r}")
