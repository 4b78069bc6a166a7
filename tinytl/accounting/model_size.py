"""Bytes of a network's values as a bundle stores them. No torch here: it mirrors the state dict of
tinytl.engine.network.Network with frozen weights in 8 bits and trained values in 32."""

from __future__ import annotations

from tinytl.description.config import (
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    NormConfig,
)
from tinytl.description.method import Method

_FLOAT = 4


def model_bytes(network: NetworkConfig, method: Method) -> int:
    return sum(part_model_bytes(network, method))


def part_model_bytes(network: NetworkConfig, method: Method) -> list[int]:
    """Of each part: the stem, the active blocks, the tail, the classifier."""

    def conv(config: ConvConfig) -> int:
        num_weights = config.in_channels * config.out_channels * config.kernel_size**2
        norm = network.norm if config.has_norm else None
        return _unit(num_weights, config.out_channels, norm, method)

    tail = conv(network.feature_mix)
    if network.final_expand is not None:
        tail += conv(network.final_expand)
    head = (network.feature_mix.out_channels + 1) * network.num_classes * _FLOAT
    blocks = [_block(block, network.norm, method) for block in network.active_blocks]
    return [conv(network.first_conv), *blocks, tail, head]


def _block(block: BlockConfig, norm: NormConfig, method: Method) -> int:
    mid, squeezed = block.mid_channels, block.squeeze_channels
    total = _unit(mid * block.kernel_size**2, mid, norm, method)
    total += _unit(mid * block.out_channels, block.out_channels, norm, method)
    if block.has_expansion:
        total += _unit(block.in_channels * mid, mid, norm, method)
    if block.squeeze_excite:
        biases = (squeezed + mid) * _FLOAT
        total += _unit(mid * squeezed, squeezed, None, method)
        total += _unit(mid * squeezed, mid, None, method) + biases
    if block.lite_residual is not None:
        total += _lite_residual(block.lite_residual)
    return total


def _unit(num_weights: int, out_channels: int, norm: NormConfig | None, method: Method) -> int:
    """Of a tinytl.engine.layers.ConvUnit; where it has no norm, without a bias."""
    total = 0 if norm is None else out_channels * _FLOAT  # bias
    if method.trains_weights:
        total += num_weights * _FLOAT
    else:
        total += num_weights + out_channels * _FLOAT  # scales
    if norm is not None and norm.kind == "group":
        total += out_channels * _FLOAT  # gain
    elif norm is not None and method.trains_gain:
        total += 3 * out_channels * _FLOAT  # gain and statistics
    return total


def _lite_residual(module: LiteResidualConfig) -> int:
    mid, out = module.mid_channels, module.out_channels
    conv1 = module.in_channels // module.groups * mid * module.kernel_size**2
    return (conv1 + 2 * mid + mid * out + 2 * out) * _FLOAT
