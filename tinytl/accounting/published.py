"""The published accounting: what the TinyTL release's profiler counts, byte for byte.

`peak activation x batch + weights`. It leaves out gradients, optimizer state, backward
temporaries and what a frozen group norm needs; tinytl.accounting.memory counts all of that. This
figure is for comparison with the paper. The published profiler adds up in single precision, so
sums above 2^24 are rounded as it rounds them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tinytl.description.config import (
    Activation,
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    conv_size,
    without_lite_residuals,
)
from tinytl.description.method import Method

_ACTIVATION_BYTES = 4
_TRAINED_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class PublishedMemory:
    """The published figure, in bytes; total = parameters + batch size x activations."""

    param_bytes: int
    peak_activation_bytes_per_image: int
    batch_size: int

    @property
    def total_bytes(self) -> int:
        return self.param_bytes + self.batch_size * self.peak_activation_bytes_per_image


def published_memory(
    network: NetworkConfig,
    method: Method,
    *,
    resolution: int,
    batch_size: int,
    frozen_param_bits: int,
) -> PublishedMemory:
    """The published profiler's figure for training network with method.

    Lite residual modules count only where the method trains them.
    """
    if not method.uses_lite_residual:
        network = without_lite_residuals(network)
    trained, frozen = count_parameters(network, method)
    tape = _Tape(require_backward=method.trains_backbone)
    _walk(network, method, resolution, tape)
    return PublishedMemory(
        param_bytes=int(_TRAINED_BYTES * trained + frozen_param_bits / 8 * frozen),
        peak_activation_bytes_per_image=int(tape.peak_bytes),
        batch_size=batch_size,
    )


def count_parameters(network: NetworkConfig, method: Method) -> tuple[int, int]:
    """Numbers of trained and of frozen parameter values."""
    trained = frozen = 0
    for size, is_trained in _parameters(network, method):
        if is_trained:
            trained += size
        else:
            frozen += size
    return trained, frozen


def _parameters(network: NetworkConfig, method: Method) -> Iterator[tuple[int, bool]]:
    for conv in (network.first_conv, network.final_expand, network.feature_mix):
        if conv is not None:
            weight = conv.in_channels * conv.out_channels * conv.kernel_size**2
            yield weight, method.trains_weights
            if conv.has_norm:
                yield from _norm_parameters(conv.out_channels, method)
    for block in network.active_blocks:
        yield from _block_parameters(block, method)
    yield (network.feature_mix.out_channels + 1) * network.num_classes, True


def _norm_parameters(channels: int, method: Method) -> Iterator[tuple[int, bool]]:
    yield channels, method.trains_gain
    yield channels, method.trains_bias


def _block_parameters(block: BlockConfig, method: Method) -> Iterator[tuple[int, bool]]:
    mid = block.mid_channels
    if block.has_expansion:
        yield block.in_channels * mid, method.trains_weights
        yield from _norm_parameters(mid, method)
    yield mid * block.kernel_size**2, method.trains_weights
    yield from _norm_parameters(mid, method)
    if block.squeeze_excite:
        yield 2 * mid * block.squeeze_channels, method.trains_weights
        yield block.squeeze_channels + mid, method.trains_squeeze_bias
    yield mid * block.out_channels, method.trains_weights
    yield from _norm_parameters(block.out_channels, method)
    module = block.lite_residual
    if module is not None:
        lite_mid = module.mid_channels
        conv1 = module.in_channels // module.groups * lite_mid * module.kernel_size**2
        conv2 = lite_mid * module.out_channels
        norms = 2 * lite_mid + module.out_channels
        yield conv1 + conv2 + norms, method.uses_lite_residual
        yield module.out_channels, method.trains_last_lite_bias


class _Tape:
    """What the profiler adds up while one image passes."""

    def __init__(self, *, require_backward: bool) -> None:
        self.require_backward = require_backward
        self.kept_bytes = 0.0
        self.residual_bytes = 0.0
        self.peak_bytes = 0.0

    def _run(self, kept_bytes: float, passing_bytes: float) -> None:
        current = _single(_single(_single(passing_bytes) + self.kept_bytes) + self.residual_bytes)
        self.peak_bytes = max(self.peak_bytes, current)
        self.kept_bytes = _single(self.kept_bytes + _single(kept_bytes))

    def weighted(self, inputs: int, outputs: int, *, groups: int = 1, trained: bool) -> None:
        """A convolution or linear layer of so many input and output values."""
        in_bytes = inputs * _ACTIVATION_BYTES
        out_bytes = outputs * _ACTIVATION_BYTES // groups
        self._run(in_bytes if trained else 0, in_bytes + out_bytes)

    def norm(self, values: int, *, trained: bool) -> None:
        num_bytes = values * _ACTIVATION_BYTES
        self._run(num_bytes if trained else 0, num_bytes)

    def activation(self, values: int, kind: Activation | None) -> None:
        if kind is None:
            return
        num_bytes = values * _ACTIVATION_BYTES
        kept = num_bytes if kind == "h_swish" else values / 8
        self._run(kept if self.require_backward else 0, num_bytes)


def _single(value: float) -> float:
    """value rounded to single precision."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _walk(network: NetworkConfig, method: Method, resolution: int, tape: _Tape) -> None:
    size = _walk_conv(network.first_conv, method, resolution, tape)
    for block in network.active_blocks:
        tape.residual_bytes = block.in_channels * size**2 * _ACTIVATION_BYTES * block.shortcut
        out_size = _walk_block(block, method, size, tape)
        if block.lite_residual is not None:
            _walk_lite_residual(block.lite_residual, method, size, tape)
        tape.residual_bytes = 0
        size = out_size
    if network.final_expand is not None:
        _walk_conv(network.final_expand, method, size, tape)
        size = 1
    _walk_conv(network.feature_mix, method, size, tape)
    tape.weighted(network.feature_mix.out_channels, network.num_classes, trained=True)


def _walk_conv(conv: ConvConfig, method: Method, size: int, tape: _Tape) -> int:
    out_size = conv_size(size, conv.kernel_size, conv.stride)
    values = conv.out_channels * out_size**2
    tape.weighted(conv.in_channels * size**2, values, trained=method.trains_weights)
    if conv.has_norm:
        tape.norm(values, trained=method.trains_gain)
    tape.activation(values, conv.activation)
    return out_size


def _walk_block(block: BlockConfig, method: Method, size: int, tape: _Tape) -> int:
    trained, gain_trained = method.trains_weights, method.trains_gain
    mid = block.mid_channels
    out_size = conv_size(size, block.kernel_size, block.stride)
    in_values, wide, out_wide = block.in_channels * size**2, mid * size**2, mid * out_size**2
    if block.has_expansion:
        tape.weighted(in_values, wide, trained=trained)
        tape.norm(wide, trained=gain_trained)
        tape.activation(wide, block.activation)
    tape.weighted(wide, out_wide, groups=mid, trained=trained)
    tape.norm(out_wide, trained=gain_trained)
    tape.activation(out_wide, block.activation)
    if block.squeeze_excite:
        tape.weighted(mid, block.squeeze_channels, trained=trained)
        tape.activation(block.squeeze_channels, "relu")
        tape.weighted(block.squeeze_channels, mid, trained=trained)
        tape.activation(mid, "h_swish")  # the hard sigmoid, counted like any smooth activation
    out_values = block.out_channels * out_size**2
    tape.weighted(out_wide, out_values, trained=trained)
    tape.norm(out_values, trained=gain_trained)
    return out_size


def _walk_lite_residual(
    module: LiteResidualConfig, method: Method, size: int, tape: _Tape
) -> None:
    pooled = 1 if module.downsample_ratio is None else size // module.downsample_ratio
    out_size = conv_size(pooled, module.kernel_size, module.stride)
    mid_values = module.mid_channels * out_size**2
    out_values = module.out_channels * out_size**2
    trained = method.uses_lite_residual
    in_values = module.in_channels * pooled**2
    tape.weighted(in_values, mid_values, groups=module.groups, trained=trained)
    tape.norm(mid_values, trained=trained)
    tape.activation(mid_values, "relu")
    tape.weighted(mid_values, out_values, trained=trained)
    tape.norm(out_values, trained=trained)
