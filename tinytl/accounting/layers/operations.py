"""What the layers of a network take while they run, written down event by event, without torch.

It mirrors tinytl.engine.layers: a change there that allocates otherwise is a change here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinytl.accounting.layers.ledger import FLOAT_BYTES, Ledger, Pass
from tinytl.accounting.layers.optimizer import state_bytes, update_bytes
from tinytl.description.chunks import (
    DEQUANTIZE_CHUNK_VALUES,
    HARD_SWISH_CHUNK_VALUES,
    MASK_CHUNK_WORDS,
    MASK_WORD_BITS,
    num_mask_words,
)
from tinytl.description.config import (
    Activation,
    NormConfig,
    Padding,
    conv_pads,
    conv_size,
    largest_divisor,
)
from tinytl.description.method import Method
from tinytl.description.plan import OptimizerBits, TrainedBits

_NATIVE_CONV_BYTES = 20480 * FLOAT_BYTES
"""Up to this input size torch convolves a single image by its own code, with extra columns."""

_NATIVE_PADDING_BYTES = 1 << 12
SCRATCH_BYTES = 1 << 16
"""Of a dense or grouped convolution: some kilobytes a thread."""

_MASK_WORD_BYTES = MASK_WORD_BITS // 8
_NORM_THREADS = 8
"""Threads that group norms are priced for: each has sums of its own, small beside the maps."""

_DEPTHWISE_GRADIENT_COPIES = 257
"""Partial sums that oneDNN makes at most of a depthwise weight gradient, but for 3x3 on maps as
large: with AVX-512. With AVX2 it makes 65."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a micro-batch is trained with; num_images are in it."""

    norm: NormConfig
    padding: Padding
    method: Method
    num_images: int
    frozen_bits: int
    optimizer_bits: OptimizerBits
    trained_bits: TrainedBits

    def map_bytes(self, channels: int, size: int) -> int:
        """Bytes of a float map (num_images, channels, size, size)."""
        return FLOAT_BYTES * self.num_images * channels * size**2


class Parameters:
    """Bytes of parameters, as they are described: stored, trained, their optimizer state."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.frozen_bytes = 0
        self.trained_bytes = 0
        self.state_bytes = 0
        self.gradient_bytes = 0

    @property
    def stored(self) -> tuple[int, int, int]:
        """Bytes of frozen weights, of trained values, of the optimizer's state."""
        return self.frozen_bytes, self.trained_bytes, self.state_bytes

    def add(self, num_values: int, *, trained: bool, is_matrix: bool = False) -> None:
        """A float parameter; matrices are stored in the plan's trained bits where they learn."""
        setting = self._setting
        if not trained:
            self.frozen_bytes += num_values * FLOAT_BYTES
            return
        bits = setting.trained_bits if is_matrix else 32
        self.trained_bytes += num_values * bits // 8
        self.state_bytes += state_bytes(num_values, setting.optimizer_bits)
        self.gradient_bytes += num_values * FLOAT_BYTES


def accumulate_gradient(
    ledger: Ledger, setting: Setting, kind: Pass, num_values: int, *, is_matrix: bool = False
) -> None:
    """Gradients.add: the gradient is held already; it goes, or waits for the next micro-batch."""
    gradient = num_values * FLOAT_BYTES
    if kind == "first":
        return
    if kind != "only":  # added to the sum
        ledger.free(gradient)
    if kind != "middle":
        bits = setting.trained_bits if is_matrix else 32
        ledger.transient(update_bytes(num_values, setting.optimizer_bits, bits))
        ledger.free(gradient)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A ConvUnit of side in_size: what decides its bytes."""

    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    is_depthwise: bool = False
    activation: Activation | None = None
    has_norm: bool = True
    has_bias: bool = True
    bias_learns: bool = False
    in_size: int

    @property
    def out_size(self) -> int:
        return conv_size(self.in_size, self.kernel_size, self.stride)

    @property
    def num_weights(self) -> int:
        return self.num_values(self.kernel_size)

    def num_values(self, kernel_size: int) -> int:
        """Of a weight of this size."""
        ins = 1 if self.is_depthwise else self.in_channels
        return self.out_channels * ins * kernel_size**2

    @property
    def is_pointwise(self) -> bool:
        return self.kernel_size == 1 and self.stride == 1 and not self.is_depthwise


class UnitCost:
    """Forward and backward of a ConvUnit as ledger entries. x, y: bytes of input and output."""

    def __init__(self, unit: Unit, setting: Setting) -> None:
        self.unit = unit
        self.setting = setting
        norm, method = setting.norm, setting.method
        self.x = setting.map_bytes(unit.in_channels, unit.in_size)
        self.y = setting.map_bytes(unit.out_channels, unit.out_size)
        self.keeps_gain = unit.has_norm and (norm.kind == "group" or method.trains_gain)
        self.trains_weight = method.trains_weights
        standardized = unit.has_norm and norm.weight_standardization_eps is not None
        self._standardizes = standardized and self.trains_weight
        before, after = conv_pads(setting.padding, unit.kernel_size, unit.stride, unit.in_size)
        self._is_laid_out = before < after
        self._kernel_size = unit.kernel_size + self._is_laid_out
        """Of the weight as it is convolved with."""
        self._num_laid_out = unit.num_values(self._kernel_size)
        self._laid_out = self._num_laid_out * FLOAT_BYTES
        self._weight = unit.num_weights * FLOAT_BYTES
        self._num_planes = setting.num_images * unit.out_channels
        group = largest_divisor(unit.out_channels, norm.channels_per_group)
        self._group_statistics = 2 * FLOAT_BYTES * self._num_planes // group
        """Mean and deviation of every group of channels of an image."""

    @property
    def keeps_bits_only(self) -> bool:
        return not (self.trains_weight or self.keeps_gain or self.unit.activation == "h_swish")

    def count(self, parameters: Parameters) -> None:
        unit, method = self.unit, self.setting.method
        if self.trains_weight:
            parameters.add(unit.num_weights, trained=True, is_matrix=True)
        else:
            bits = self.setting.frozen_bits
            scales = unit.out_channels * FLOAT_BYTES if bits == 8 else 0
            parameters.frozen_bytes += unit.num_weights * bits // 8 + scales
        if self.keeps_gain:
            parameters.add(unit.out_channels, trained=method.trains_gain)
            if self.setting.norm.kind == "batch":
                parameters.frozen_bytes += 2 * unit.out_channels * FLOAT_BYTES
        if unit.has_bias:
            parameters.add(unit.out_channels, trained=unit.bias_learns)

    @property
    def kept(self) -> int:
        """Bytes on the tape between forward and backward, a trained convolution's x apart."""
        kept = 0
        if self.keeps_gain:
            is_group = self.setting.norm.kind == "group"
            kept += self.y + (self._group_statistics if is_group else 0)
        if self.unit.activation == "h_swish":
            kept += self.y
        elif self.unit.activation is not None:
            kept += self._bits
        return kept

    @property
    def _bits(self) -> int:
        """The mask's."""
        return _MASK_WORD_BYTES * num_mask_words(self.y // FLOAT_BYTES)

    @property
    def _mask_row(self) -> int:
        """Floats of a word each, of a chunk of the mask."""
        return FLOAT_BYTES * min(num_mask_words(self.y // FLOAT_BYTES), MASK_CHUNK_WORDS)

    def forward(self, ledger: Ledger, *, taped: bool, holds_input: bool = True) -> None:
        """x is held, by the caller to the end or else until it is convolved. Leaves y held, and
        what is kept."""
        widened, copies, y = self._widened_bytes, self._conv_workspace, self.y
        self._hold_widened(ledger)
        ledger.transient(y, workspace=copies)
        ledger.free(widened)
        ledger.allocate(y)
        if not holds_input:
            ledger.free(self.x)
        if self.keeps_gain:
            self._normalize(ledger, taped=taped)
        activation = self.unit.activation
        if activation == "h_swish":
            if taped:
                ledger.allocate(y)
        elif activation is not None and taped:
            ledger.allocate(self._bits)
            ledger.transient((MASK_WORD_BITS + 2) * self._mask_row)

    def _normalize(self, ledger: Ledger, *, taped: bool) -> None:
        if self.setting.norm.kind == "group":
            statistics = self._group_statistics
            workspace = norm_workspace(self._num_planes, self.unit.out_size)
            ledger.transient(self.y, workspace=workspace)
            ledger.allocate(self.y + statistics)
            if not taped:
                ledger.free(self.y + statistics)
        elif taped:
            ledger.allocate(self.y)

    def _hold_widened(self, ledger: Ledger) -> None:
        if self._standardizes:
            ledger.transient(self._halved + self._weight + 2 * self._vector)
        if self._is_laid_out and (self._standardizes or self._halved):
            ledger.transient(self._weight + self._laid_out)
        ledger.allocate(self._widened_bytes)

    @property
    def _halved(self) -> int:
        """A trained weight in float while it is stored in half of that."""
        halved = self.trains_weight and self.setting.trained_bits == 16
        return self._weight if halved else 0

    @property
    def _vector(self) -> int:
        return self.unit.out_channels * FLOAT_BYTES

    @property
    def _widened_bytes(self) -> int:
        """The weight in float for a while: a frozen one widened, a trained one standardized; and
        laid out, for a frozen one in the bits that it is stored in."""
        if self._is_laid_out:
            stored = self.setting.frozen_bits == 8 and not self.trains_weight
            return self._laid_out + (self._num_laid_out if stored else 0)
        if self.trains_weight:
            return self._weight if self._standardizes or self._halved else 0
        if self.setting.frozen_bits != 8:
            return 0
        if self.unit.is_pointwise:
            rows = max(1, DEQUANTIZE_CHUNK_VALUES // self.unit.in_channels)
            return min(self._weight, rows * self.unit.in_channels * FLOAT_BYTES)
        return self._weight

    @property
    def _conv_workspace(self) -> int:
        unit = self.unit
        if unit.is_pointwise:
            return 0
        if unit.is_depthwise:
            return self._blocked_weight
        if self.setting.num_images == 1:
            columns = im2col_bytes(self.x, self._kernel_size, unit.stride)
            if columns:
                return columns + self._laid_out + _NATIVE_PADDING_BYTES
        return self._laid_out + self._blocked_weight + SCRATCH_BYTES

    @property
    def _blocked_weight(self) -> int:
        """The weight in oneDNN's layout: channels filled up to blocks."""
        unit = self.unit
        return self._laid_out // unit.out_channels * round_up(unit.out_channels, 16)

    def backward(
        self, ledger: Ledger, kind: Pass, *, needs_input: bool = True, grad_stays: bool = False
    ) -> None:
        """The gradient of y is held, and what was kept; leaves the gradient of x held.

        grad_stays: that of y is needed elsewhere, and is held to the end.
        """
        unit, setting = self.unit, self.setting
        if unit.activation == "h_swish":
            ledger.transient(min(self.y, HARD_SWISH_CHUNK_VALUES * FLOAT_BYTES))
            ledger.free(self.y)
        elif unit.activation is not None:
            ledger.transient((MASK_WORD_BITS + 1) * self._mask_row)
            ledger.free(self._bits)
        vector = self._vector
        if self.keeps_gain:
            self._normalize_backward(ledger, grad_stays=grad_stays)
            ledger.allocate(2 * vector)
            for trained in (setting.method.trains_gain, unit.bias_learns):
                if trained:
                    accumulate_gradient(ledger, setting, kind, unit.out_channels)
                else:
                    ledger.free(vector)
        elif unit.has_bias and unit.bias_learns:
            ledger.allocate(vector)
            accumulate_gradient(ledger, setting, kind, unit.out_channels)
        if self.trains_weight:
            self._trained_backward(ledger, kind, needs_input=needs_input)
        elif needs_input:
            self._input_gradient(ledger)
        if self._makes_gradient or not grad_stays:
            ledger.free(self.y)

    @property
    def _makes_gradient(self) -> bool:
        """Whether the norm's backward writes to a map of its own."""
        return self.keeps_gain and self.setting.norm.kind == "group"

    def _normalize_backward(self, ledger: Ledger, *, grad_stays: bool) -> None:
        if self._makes_gradient:
            workspace = norm_backward_workspace(self._num_planes, self.unit.out_size)
            ledger.transient(self.y, workspace=workspace)
            ledger.allocate(self.y)
            ledger.free(self.y + self._group_statistics)
            if not grad_stays:
                ledger.free(self.y)
        else:
            ledger.free(self.y)

    def _input_gradient(self, ledger: Ledger) -> None:
        turned = 0
        if self.unit.is_depthwise and self.unit.stride == 1:
            turned = self._weight
        ledger.allocate(self._widened_bytes + turned)
        ledger.transient(self.x, workspace=self._conv_workspace)
        ledger.free(self._widened_bytes + turned)
        ledger.allocate(self.x)

    def _trained_backward(self, ledger: Ledger, kind: Pass, *, needs_input: bool) -> None:
        unit, weight, laid_out = self.unit, self._weight, self._laid_out
        self._hold_widened(ledger)
        if needs_input:
            turned = weight if unit.is_depthwise and unit.stride == 1 else 0
            ledger.transient(turned + self.x, workspace=self._conv_workspace)
            ledger.allocate(self.x)
        if unit.is_pointwise:
            ledger.allocate(weight)
        else:
            copies = laid_out + self._conv_workspace
            if unit.is_depthwise and self._kernel_size > min(3, unit.in_size) > 1:
                copies = _DEPTHWISE_GRADIENT_COPIES * laid_out
            ledger.transient(laid_out, workspace=copies)
            if not unit.is_depthwise:
                ledger.transient(2 * laid_out)
            ledger.allocate(weight)
            if self._is_laid_out:
                ledger.transient(laid_out)
        if self._standardizes:
            ledger.transient(self._halved + 2 * weight + 4 * self._vector)
        accumulate_gradient(ledger, self.setting, kind, unit.num_weights, is_matrix=True)
        ledger.free(self._widened_bytes)


def round_up(channels: int, block: int) -> int:
    """Channels filled up to a multiple of the block."""
    return -(-channels // block) * block


def im2col_bytes(x: int, kernel_size: int, stride: int) -> int:
    """Bytes of the columns that torch's own convolution makes of a single image of x bytes; 0
    where it leaves that to oneDNN."""
    return x * kernel_size**2 // stride**2 if x <= _NATIVE_CONV_BYTES else 0


def norm_workspace(num_planes: int, size: int) -> int:
    """Bytes inside torch's group norm of a channels-last map: sums and sums of squares.

    num_planes: images times channels, of side size. Large maps are summed thread by thread.
    """
    sums = 2 * num_planes * FLOAT_BYTES
    return sums if size**2 < 1024 else _NORM_THREADS * sums + num_planes


def norm_backward_workspace(num_planes: int, size: int) -> int:
    """Bytes inside torch's backward of norm_workspace's norm."""
    sums = 2 * num_planes * FLOAT_BYTES
    return sums if size**2 < 2048 else (1 + _NORM_THREADS) * sums + num_planes
