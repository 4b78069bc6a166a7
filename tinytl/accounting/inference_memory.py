"""What classifying an image takes, predicted: the whole process that runs the int8 export with
onnxruntime, as tinytl.onnx_export.footprint measures it. No torch and no onnx here: it mirrors
tinytl.onnx_export.network.

Between tensors and a process lie allocators and a runtime, so this is a bound, not a count: a sum
of what such a process grows with, weighted so that none of the measured ones is above it
(benchmarks/memory/inference.py fits the weights and prints how far above the measured it is).
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytl.description.config import (
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    NormConfig,
    conv_size,
)

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Bytes of a process: fixed ones (Python, NumPy and onnxruntime loaded, and a session of it),
    those for a node of the graph and for a squeeze-and-excite, and for each byte of constants in 8
    bits, of constants in floats, and of what is alive at the worst moment of a run."""

    fixed: int
    node: float
    squeeze_excite: float
    int8: float
    floats: float
    live: float


WEIGHTS = Weights(
    fixed=64_600_000, node=6_500, squeeze_excite=725_000, int8=1.65, floats=1.11, live=1.81
)
"""Of onnxruntime 1.32 under Linux on x86-64, in one thread, in the session that predict.py
opens."""


@dataclass(kw_only=True)
class Part:
    """What a part of a network becomes in the graph. live_bytes: of maps, and of the widened
    weight of the convolution that runs, at the worst moment."""

    num_nodes: int = 0
    num_squeeze_excites: int = 0
    int8_bytes: int = 0
    float_bytes: int = 0
    live_bytes: int = 0

    def added_bytes(self, weights: Weights) -> int:
        """What it adds to a process, whatever else is in the network."""
        return round(
            weights.node * self.num_nodes
            + weights.squeeze_excite * self.num_squeeze_excites
            + weights.int8 * self.int8_bytes
            + weights.floats * self.float_bytes
        )

    def running_bytes(self, weights: Weights) -> int:
        """What a process takes while it runs; of parts, the largest counts."""
        return round(weights.live * self.live_bytes)


def process_bytes(network: NetworkConfig, resolution: int, weights: Weights = WEIGHTS) -> int:
    """Most that is resident while one image of this side, in pixels, is classified."""
    parts = graph_parts(network, resolution)
    added = sum(part.added_bytes(weights) for part in parts)
    return weights.fixed + added + max(part.running_bytes(weights) for part in parts)


def graph_parts(network: NetworkConfig, resolution: int) -> list[Part]:
    """Of the stem, the active blocks, the tail, the classifier."""
    stem = network.first_conv
    size = conv_size(resolution, stem.kernel_size, stem.stride)
    image_bytes = _map(3, resolution)
    first = Part(num_nodes=3)  # images are cast, scaled and shifted
    _add_conv(first, stem, network.norm)
    first.live_bytes = max(2 * image_bytes, image_bytes + _map(stem.out_channels, size))
    parts = [first]
    for block in network.active_blocks:
        out_size = conv_size(size, block.kernel_size, block.stride)
        parts.append(_block(block, network.norm, size, out_size))
        size = out_size
    return [*parts, _tail(network, size), _head(network)]


def _map(channels: int, size: int) -> int:
    return channels * size**2 * FLOAT_BYTES


def _add_unit(
    part: Part,
    num_weights: int,
    out_channels: int,
    norm: NormConfig | None,
    *,
    is_active: bool,
    has_bias: bool = True,
) -> None:
    """A DequantizeLinear, a Conv, the nodes of a group norm, and an activation."""
    part.num_nodes += 2 + is_active
    part.int8_bytes += num_weights
    part.float_bytes += (1 + has_bias) * out_channels * FLOAT_BYTES  # scales and biases
    if norm is not None and norm.kind == "group":
        part.num_nodes += 5
        part.float_bytes += out_channels * FLOAT_BYTES  # gains


def _add_conv(part: Part, conv: ConvConfig, norm: NormConfig) -> None:
    num_weights = conv.in_channels * conv.out_channels * conv.kernel_size**2
    _add_unit(
        part,
        num_weights,
        conv.out_channels,
        norm if conv.has_norm else None,
        is_active=conv.activation is not None,
        has_bias=conv.has_norm,
    )


def _block(block: BlockConfig, norm: NormConfig, size: int, out_size: int) -> Part:
    part, mid = Part(num_nodes=int(block.shortcut)), block.mid_channels
    expand, depthwise = block.in_channels * mid, mid * block.kernel_size**2
    project = mid * block.out_channels
    if block.has_expansion:
        _add_unit(part, expand, mid, norm, is_active=True)
    _add_unit(part, depthwise, mid, norm, is_active=True)
    _add_unit(part, project, block.out_channels, norm, is_active=False)
    if block.squeeze_excite:
        _add_squeeze_excite(part, mid, block.squeeze_channels)
    if block.lite_residual is not None:
        _add_lite_residual(part, block.lite_residual)
    part.live_bytes = max(_moments(block, size, out_size))
    return part


def _moments(block: BlockConfig, size: int, out_size: int) -> list[int]:
    """What is alive while each of a block's nodes runs. The lite residual module runs first, and
    its output waits; an h-swish is two nodes, so its input is there until its output is."""
    mid = block.mid_channels
    given, result = _map(block.in_channels, size), _map(block.out_channels, out_size)
    wide, narrowed = _map(mid, size), _map(mid, out_size)
    module = 0 if block.lite_residual is None else result
    held = module + (given if block.shortcut else 0)
    entering = given
    moments = []
    if block.has_expansion:
        entering = wide
        moments.append(given + module + wide + block.in_channels * mid * FLOAT_BYTES)
    kernel_bytes = mid * block.kernel_size**2 * FLOAT_BYTES
    moments.append(held + entering + narrowed + kernel_bytes)
    moments.append(held + narrowed + result + mid * block.out_channels * FLOAT_BYTES)
    if block.activation == "h_swish":
        moments.append(held + 2 * max(entering, narrowed))
    return moments


def _add_squeeze_excite(part: Part, channels: int, squeezed: int) -> None:
    part.num_squeeze_excites += 1
    part.num_nodes += 3  # pool, gate, product
    _add_unit(part, channels * squeezed, squeezed, None, is_active=True)
    _add_unit(part, channels * squeezed, channels, None, is_active=False)


def _add_lite_residual(part: Part, module: LiteResidualConfig) -> None:
    """Its weights stay in floats."""
    mid, out = module.mid_channels, module.out_channels
    conv1 = module.in_channels // module.groups * mid * module.kernel_size**2
    part.num_nodes += 16  # pool, two convolutions with their group norms, ReLU, upsampling, sum
    part.float_bytes += (conv1 + 2 * mid + mid * out + 2 * out) * FLOAT_BYTES


def _tail(network: NetworkConfig, size: int) -> Part:
    part, mix, expand = Part(num_nodes=1), network.feature_mix, network.final_expand
    _add_conv(part, mix, network.norm)
    first = mix
    if expand is not None:  # the pooling is before feature_mix
        _add_conv(part, expand, network.norm)
        first = expand
    num_maps = 2 if first.activation == "h_swish" else 1
    weight_bytes = first.in_channels * first.out_channels * FLOAT_BYTES
    out = num_maps * _map(first.out_channels, size)
    part.live_bytes = _map(first.in_channels, size) + out + weight_bytes
    return part


def _head(network: NetworkConfig) -> Part:
    num_values = (network.feature_mix.out_channels + 1) * network.num_classes
    return Part(num_nodes=3, float_bytes=num_values * FLOAT_BYTES)
