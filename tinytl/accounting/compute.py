"""Multiply-accumulates of a network's forward pass, in plain Python.

Counted: every convolution, squeeze-and-excite, lite residual modules where the network has them,
the classifier. A convolution counts for each position of its output all of its kernel, over the
padding too; not the zeros that the engine lays before a kernel for "same" padding of even maps
(tinytl.engine.ops.convolution.lay_out). Left out: norms, biases, activations, pooling,
upsampling, the shortcut's and the gate's arithmetic.
"""

from __future__ import annotations

from tinytl.description.config import (
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    conv_size,
)


def multiply_accumulates(network: NetworkConfig, resolution: int) -> int:
    """Of one square image, resolution pixels a side. One is a multiplication and an addition."""
    return sum(part_multiply_accumulates(network, resolution))


def part_multiply_accumulates(network: NetworkConfig, resolution: int) -> list[int]:
    """Of each part: the stem, the active blocks, the tail, the classifier."""
    stem, features = network.first_conv, network.feature_mix.out_channels
    size = conv_size(resolution, stem.kernel_size, stem.stride)
    parts = [_conv(stem, size)]
    for block in network.active_blocks:
        parts.append(_block(block, size))
        size = conv_size(size, block.kernel_size, block.stride)
    if network.final_expand is None:
        tail = _conv(network.feature_mix, size)
    else:  # the pooling is before feature_mix
        tail = _conv(network.final_expand, size) + _conv(network.feature_mix, 1)
    return [*parts, tail, features * network.num_classes]


def _conv(conv: ConvConfig, out_size: int) -> int:
    return conv.in_channels * conv.out_channels * (conv.kernel_size * out_size) ** 2


def _block(block: BlockConfig, size: int) -> int:
    """size: side of the block's input."""
    mid, out_size = block.mid_channels, conv_size(size, block.kernel_size, block.stride)
    expand = block.in_channels * mid * size**2 if block.has_expansion else 0
    depthwise = mid * (block.kernel_size * out_size) ** 2
    gate = 2 * mid * block.squeeze_channels if block.squeeze_excite else 0
    project = mid * block.out_channels * out_size**2
    module = block.lite_residual
    lite_residual = 0 if module is None else _lite_residual(module, size)
    return expand + depthwise + gate + project + lite_residual


def _lite_residual(module: LiteResidualConfig, size: int) -> int:
    ratio = module.downsample_ratio
    pooled_size = 1 if ratio is None else size // min(ratio, size)
    end_size = conv_size(pooled_size, module.kernel_size, module.stride)
    in_channels = module.in_channels // module.groups
    values = in_channels * module.kernel_size**2 + module.out_channels
    return module.mid_channels * values * end_size**2
