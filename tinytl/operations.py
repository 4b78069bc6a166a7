"""A training step written down: what each of the network's operations takes, in plain Python.

It mirrors tinytl.network and its layers, allocation by allocation; a change there that allocates
otherwise is a change here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytl.config import (
    Activation,
    BlockConfig,
    ConvConfig,
    LiteResidualConfig,
    NetworkConfig,
    NormConfig,
    conv_size,
)
from tinytl.trainable import Method

FLOAT_BYTES = 4
_NATIVE_CONV_BYTES = 20480 * FLOAT_BYTES
"""Up to this input size torch convolves a single image by its own code, with extra columns."""

_REORDER_PADDING_BYTES = 1 << 16
_BLOCK_CHANNELS = 16
_DEPTHWISE_GRADIENT_COPIES = 257
"""Partial sums that oneDNN makes of a depthwise weight gradient, but for 3x3 on maps as large."""


_MASK_CHUNKS = 8
_MIN_WIDENED_VALUES = 1 << 18
"""Values of a large frozen matrix that are widened at a time."""

MASK_CHUNK_BYTES = 1 << 12


WIDENED_VALUES = 1 << 18
"""Values of a large frozen matrix that are widened at a time."""

MASK_CHUNK_BYTES = 1 << 12
"""Bytes of a bit mask that are packed or unpacked at a time."""


def mask_chunk_bytes(num_bytes: int) -> int:
    """Bytes of a rectifier's bit mask that are packed or unpacked at a time."""
    return max(-(-num_bytes // _MASK_CHUNKS), _MIN_MASK_CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. forward, backward: bytes that exist while it runs, beside what is kept.

    kept: bytes that wait from its forward for its backward. gradient: bytes of the parameter
    gradients that its backward makes.
    """

    forward: float
    backward: float = 0
    kept: float = 0
    gradient: int = 0


class Step:
    """The operations of one micro-batch and the parameters they need, as they are described."""

    def __init__(
        self, norm: NormConfig, method: Method, num_images: int, frozen_bits: int
    ) -> None:
        self.norm = norm
        self.frozen_bits = frozen_bits
        self.method = method
        self.num_images = num_images
        self.learns = False  # whether the present activation needs a gradient
        self.operations: list[Operation] = []
        self.frozen_bytes = 0
        self.trained_values = 0
        self.trained_tensors = 0

    def map_bytes(self, channels: int, size: int) -> int:
        """Bytes of a float map of the micro-batch."""
        return FLOAT_BYTES * self.num_images * channels * size**2

    def vector(self, num_values: int, *, trained: bool) -> int:
        """Count a float parameter; returns the bytes of its gradient, 0 where it has none."""
        num_bytes = num_values * FLOAT_BYTES
        if not trained:
            self.frozen_bytes += num_bytes
            return 0
        self.trained_values += num_values
        self.trained_tensors += 1
        return num_bytes

    def unit(
        self,
        *,
        x: int,
        y: int,
        weights: int,
        channels: int,
        activation: Activation | None,
        has_norm: bool = True,
        has_bias: bool = True,
        bias_trained: bool | None = None,
        beside: int = 0,
        waiting: int = 0,
        kernel_size: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        gradient_copies: int = 1,
    ) -> None:
        """A ConvUnit: input x and output y in bytes; weights in values.

        beside: bytes alive in forward beside x; waiting: gradients that wait in backward.
        """
        method = self.method
        bias_learns = has_bias and (method.trains_bias if bias_trained is None else bias_trained)
        keeps_gain = has_norm and (self.norm.kind == "group" or method.trains_gain)
        weight_gradient = self._count_weights(weights, channels)
        gain_gradient = 0
        if keeps_gain:
            gain_gradient = self.vector(channels, trained=method.trains_gain)
            if self.norm.kind == "batch":
                self.frozen_bytes += 2 * channels * FLOAT_BYTES
        bias_gradient = self.vector(channels, trained=bias_learns) if has_bias else 0

        learned_before = self.learns
        self.learns = learned_before or bias_learns or method.trains_weights
        x_gradient = x if learned_before else 0
        weight_bytes = weights * FLOAT_BYTES
        standardized = has_norm and self.norm.weight_standardization_eps is not None
        if method.trains_weights:
            widened = 3 * weight_bytes if standardized else 0
        else:
            widened = weight_bytes if self.frozen_bits == 8 else 0
        workspace = widened
        if kernel_size > 1:
            workspace += self._conv_workspace(x, weight_bytes, kernel_size, stride, depthwise)
        if not self.learns:
            copies = 2 if keeps_gain else 1
            self.operations.append(Operation(beside + x + max(workspace, (copies - 1) * y) + y))
            return
        mask_kept, mask_made, mask_read, mask_applied = _mask_bytes(y, activation)
        convolution = x + y + workspace
        conv_backward = waiting + y + workspace + x_gradient
        if method.trains_weights:
            conv_backward += gradient_copies * weight_bytes
        if not keeps_gain and not method.trains_weights:
            self.operations.append(
                Operation(
                    beside + max(convolution, x + y + mask_made),
                    waiting + max(mask_read, conv_backward - waiting + mask_applied),
                    mask_kept,
                    bias_gradient,
                )
            )
            return
        kept_input = x + (widened if standardized else 0)
        self.operations.append(
            Operation(
                beside + convolution,
                conv_backward,
                kept_input if method.trains_weights else 0,
                weight_gradient,
            )
        )
        if keeps_gain:
            gradients = gain_gradient + bias_gradient
            statistics = self.num_images * channels  # mean and deviation per 8 channels
            self.operations.append(
                Operation(
                    beside + x + 2 * y + statistics,
                    waiting + 2 * y + 9 * statistics,
                    y + statistics,
                    gradients,
                )
            )
        if activation is not None:
            copies = 2 if activation == "h_swish" else 1
            self.operations.append(
                Operation(beside + x + copies * y + mask_made, waiting + mask_read, mask_kept)
            )

    def _conv_workspace(
        self, x: int, weight_bytes: int, kernel_size: int, stride: int, depthwise: bool
    ) -> int:
        """What a spatial convolution takes beside input, weight and output."""
        if self.num_images == 1 and not depthwise and x <= _NATIVE_CONV_BYTES:
            return x * kernel_size**2 // stride**2
        return _reorder_bytes(weight_bytes)

    def _count_weights(self, weights: int, channels: int) -> int:
        if self.method.trains_weights:
            return self.vector(weights, trained=True)
        scales = channels * FLOAT_BYTES if self.frozen_bits == 8 else 0
        self.frozen_bytes += weights * self.frozen_bits // 8 + scales
        return 0


def _reorder_bytes(weight_bytes: int) -> int:
    """Copies of a weight in a layout of oneDNN's own: several of a small one, one of a large."""
    return min(3 * weight_bytes, weight_bytes + _REORDER_PADDING_BYTES) + 256


def _blocked_bytes(module: LiteResidualConfig) -> int:
    """The group convolution's weight with each group's channels filled up to oneDNN's blocks."""
    ins, outs = (
        -(-channels // module.groups // _BLOCK_CHANNELS) * _BLOCK_CHANNELS
        for channels in (module.in_channels, module.mid_channels)
    )
    return module.groups * ins * outs * module.kernel_size**2 * FLOAT_BYTES


def _mask_bytes(y: int, activation: Activation | None) -> tuple[float, float, float, float]:
    """Of an activation with y bytes of output: bytes (kept, while made, read, once applied).

    A rectifier's mask takes a bit per value, but bytes and floats while a chunk of it is packed
    or applied. made is beside the output; read includes the incoming and outgoing gradients;
    applied is what the outgoing gradient adds while the incoming one is still held.
    """
    if activation is None:
        return 0, 0, y, 0
    if activation == "h_swish":
        return y, y, 2 * y, y
    bits = y // FLOAT_BYTES // 8
    chunk_values = 8 * min(bits, mask_chunk_bytes(bits))
    made = bits + 2.125 * chunk_values
    return bits, made, 2 * y + (2 + FLOAT_BYTES) * chunk_values, y


def describe(network: NetworkConfig, step: Step, resolution: int, image_size: int) -> None:
    """Write down one micro-batch's operations, after the making of its images.

    resolution: side of the network's input; image_size: of the images that are stored.
    """
    stored, view = 3 * image_size**2, 3 * resolution**2
    between = 3 * image_size * resolution
    step.operations.append(Operation(2.25 * stored + 4 * between + 3 * view))
    size = _describe_conv(network.first_conv, step, resolution)
    for block in network.active_blocks:
        size = _describe_block(block, step, size)
    pooled = step.map_bytes(network.feature_mix.in_channels, 1)
    if network.final_expand is not None:
        _describe_conv(network.final_expand, step, size)
        wide = step.map_bytes(network.final_expand.out_channels, size)
        step.operations.append(Operation(wide + pooled, wide + pooled))
        size = 1
    _describe_conv(network.feature_mix, step, size)
    _describe_head(network, step, size)


def _describe_conv(conv: ConvConfig, step: Step, size: int) -> int:
    out_size = conv_size(size, conv.kernel_size, conv.stride)
    step.unit(
        x=step.map_bytes(conv.in_channels, size),
        y=step.map_bytes(conv.out_channels, out_size),
        weights=conv.in_channels * conv.out_channels * conv.kernel_size**2,
        channels=conv.out_channels,
        activation=conv.activation,
        has_norm=conv.has_norm,
        has_bias=conv.has_norm,
        kernel_size=conv.kernel_size,
        stride=conv.stride,
    )
    return out_size


def _describe_block(block: BlockConfig, step: Step, size: int) -> int:
    out_size = conv_size(size, block.kernel_size, block.stride)
    mid = block.mid_channels
    x = step.map_bytes(block.in_channels, size)
    y = step.map_bytes(block.out_channels, out_size)
    wide, out_wide = step.map_bytes(mid, size), step.map_bytes(mid, out_size)
    learned_before = step.learns
    joins = learned_before and (block.shortcut or block.lite_residual is not None)
    waiting = x if joins else 0
    if joins:  # the gradients of the paths that leave x are summed
        step.operations.append(Operation(x, 3 * x))
    if block.has_expansion:
        step.unit(
            x=x,
            y=wide,
            weights=block.in_channels * mid,
            channels=mid,
            activation=block.activation,
            waiting=waiting,
        )
    beside = x if block.has_expansion else 0
    step.unit(
        x=wide,
        y=out_wide,
        weights=mid * block.kernel_size**2,
        channels=mid,
        activation=block.activation,
        beside=beside,
        waiting=waiting,
        kernel_size=block.kernel_size,
        stride=block.stride,
        depthwise=True,
        gradient_copies=1 if block.kernel_size <= min(3, size) else _DEPTHWISE_GRADIENT_COPIES,
    )
    if block.squeeze_excite:
        _describe_squeeze_excite(block, step, out_wide, beside=x, waiting=waiting)
    step.unit(
        x=out_wide,
        y=y,
        weights=mid * block.out_channels,
        channels=block.out_channels,
        activation=None,
        beside=x,
        waiting=waiting,
    )
    if block.lite_residual is not None:
        _describe_lite_residual(
            block.lite_residual, step, x, y, size, learned_before=learned_before
        )
    return out_size


def _describe_squeeze_excite(
    block: BlockConfig, step: Step, x: int, *, beside: int, waiting: int
) -> None:
    mid, squeezed = block.mid_channels, block.squeeze_channels
    pooled, reduced = step.map_bytes(mid, 1), step.map_bytes(squeezed, 1)
    if step.learns:  # the gradient of x comes through the mean and through the product
        step.operations.append(Operation(beside + x + pooled, waiting + 3 * x + pooled))
    layers: tuple[tuple[int, int, int, Activation | None], ...] = (
        (pooled, reduced, squeezed, "relu"),
        (reduced, pooled, mid, None),
    )
    for in_bytes, out_bytes, channels, activation in layers:
        step.unit(
            x=in_bytes,
            y=out_bytes,
            weights=mid * squeezed,
            channels=channels,
            activation=activation,
            has_norm=False,
            bias_trained=step.method.trains_squeeze_bias,
            beside=beside + x,
            waiting=waiting + x,
        )
    kept = x + 3 * pooled if step.learns else 0
    step.operations.append(
        Operation(beside + 2 * x + 2 * pooled, waiting + 3 * x + 2 * pooled, kept)
    )


def _describe_lite_residual(
    module: LiteResidualConfig, step: Step, x: int, y: int, size: int, *, learned_before: bool
) -> None:
    ratio = module.downsample_ratio
    pooled_size = 1 if ratio is None else max(1, size // min(ratio, size))
    out_size = conv_size(pooled_size, module.kernel_size, module.stride)
    mid, out = module.mid_channels, module.out_channels
    pooled = step.map_bytes(module.in_channels, pooled_size)
    narrow, end = step.map_bytes(mid, out_size), step.map_bytes(out, out_size)
    trained = step.method.uses_lite_residual
    conv1 = module.in_channels // module.groups * mid * module.kernel_size**2
    gradient = sum(
        step.vector(values, trained=trained) for values in (conv1, mid, mid, mid * out, out)
    )
    gradient += step.vector(out, trained=step.method.trains_last_lite_bias)
    statistics = step.num_images * (mid + out)  # mean and deviation per 8 channels
    step.learns = step.learns or trained
    if not step.learns:
        step.operations.append(Operation(2 * y + x + pooled + 2 * max(narrow, end)))
        return
    reorder = _reorder_bytes(_blocked_bytes(module))
    columns = pooled + narrow
    small = pooled + 2 * narrow + end + statistics
    step.operations.append(
        Operation(
            x + 2 * y + small + end + columns + 2 * reorder,
            2 * y
            + 2 * max(narrow, end, pooled)
            + columns
            + 3 * reorder
            + (2 * x if learned_before else 0),
            small,
            gradient,
        )
    )


def _describe_head(network: NetworkConfig, step: Step, size: int) -> None:
    features = network.feature_mix.out_channels
    mapped, pooled = step.map_bytes(features, size), step.map_bytes(features, 1)
    logits = step.map_bytes(network.num_classes, 1)
    gradient = step.vector(features * network.num_classes, trained=True)
    gradient += step.vector(network.num_classes, trained=True)
    step.operations.append(Operation(mapped + pooled, mapped + pooled))
    step.operations.append(
        Operation(
            3 * pooled + 6 * logits, 2 * pooled + 6 * logits, 2 * pooled + 2 * logits, gradient
        )
    )
