"""Convolutions with their norms and activations, forward and backward, as operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinytl.description.config import conv_pads, conv_size
from tinytl.errors import ConfigError
from tinytl.native.operations import Clamp
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, FrozenValues, Map, part_of
from tinytl.native.unroll.parameters import Parameter, Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from tinytl.engine.layers import ConvUnit

GROUP_CHANNELS = 8
DEPTHWISE_KERNELS = (1, 3, 5, 7)
POOLED_CHANNELS = 256
"""Of a map that is averaged as it is made, so many are there at a time."""

_CLAMPS: dict[str, Clamp] = {"relu": "RELU", "relu6": "RELU6"}

_ALL = slice(None)

Tape = dict[Any, Any]
"""What forward leaves for backward, by who left it."""


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Rows above and columns left of a map that count as 0; those below follow from the size."""

    top: int
    left: int


def padding_of(unit: ConvUnit, in_size: int) -> Padding:
    """Where a convolution begins: the one place that knows."""
    before, _ = conv_pads(unit.padding, kernel_of(unit), unit.stride, in_size)
    return Padding(top=before, left=before)


def out_size_of(unit: ConvUnit, in_size: int) -> int:
    return conv_size(in_size, kernel_of(unit), unit.stride)


def kernel_of(unit: ConvUnit) -> int:
    assert unit.frozen is not None
    return int(unit.frozen.weight.shape[-1])


class Values:
    """The values of a network on the device: trained ones in the arena, the others frozen."""

    def __init__(self, parameters: Parameters, frozen: FrozenValues) -> None:
        self.parameters = parameters
        self.frozen = frozen
        self._known: dict[str, Buffer] = {}

    def trained(self, name: str) -> Parameter | None:
        return self.parameters.by_name.get(name)

    def buffer(self, name: str, values: Tensor) -> Buffer:
        """Of a parameter, whether it is trained or not."""
        parameter = self.trained(name)
        if parameter is not None:
            return parameter.values
        if name not in self._known:
            self._known[name] = self.frozen.add_floats(values)
        return self._known[name]


class Unit:
    """tinytl.engine.layers.ConvUnit."""

    def __init__(
        self, unit: ConvUnit, name: str, values: Values, *, is_stem: bool = False
    ) -> None:
        self._unit = unit
        self._name = name
        self._values = values
        self._is_stem = is_stem
        self._parts: dict[tuple[str, int], dict[str, Buffer]] = {}
        self._check()
        self._has_group_norm = unit.gain is not None
        self.kernel = kernel_of(unit)

    def _check(self) -> None:
        unit, name = self._unit, self._name
        if unit.frozen is None or unit.frozen.scale is None:
            raise ConfigError(
                f"the device trainer takes frozen weights of 8 bits, but those of {name} have 32"
            )
        if unit.gain is not None:
            assert unit.norm is not None
            if unit.norm.kind != "group" or unit.norm.channels_per_group != GROUP_CHANNELS:
                raise ConfigError(
                    f"the device trainer knows group norms of {GROUP_CHANNELS} channels a group, "
                    f"but {name} has {unit.norm.channels_per_group}"
                )
        kernel = kernel_of(unit)
        if unit.groups > 1 and kernel not in DEPTHWISE_KERNELS:
            raise ConfigError(
                f"the device trainer knows depthwise kernels of {DEPTHWISE_KERNELS}, but {name} "
                f"has {kernel}"
            )

    def _add_weights(self, outputs: slice = _ALL, inputs: slice = _ALL) -> dict[str, Buffer]:
        """int8 weights as the kernels read them, of some channels, and a scale for each output
        channel. Weights are standardized when they are frozen, so that nothing of that is left."""
        frozen = self._unit.frozen
        assert frozen is not None
        assert frozen.scale is not None
        weight = frozen.weight[outputs, inputs]
        if self._is_depthwise:
            ordered = weight[:, 0].permute(1, 2, 0)
        else:
            ordered = weight.permute(0, 2, 3, 1)
        add = self._values.frozen
        return {
            "weights": add.add(ordered),
            "scale": add.add_floats(frozen.scale.flatten()[outputs]),
        }

    @property
    def _is_depthwise(self) -> bool:
        return self._unit.groups > 1

    @property
    def out_channels(self) -> int:
        assert self._unit.frozen is not None
        return int(self._unit.frozen.weight.shape[0])

    @property
    def fuses(self) -> bool:
        return not self._has_group_norm and self._unit.activation != "h_swish"

    @property
    def bias(self) -> Parameter | None:
        return self._values.trained(f"{self._name}.bias")

    @property
    def learns(self) -> bool:
        return self.bias is not None

    @property
    def clamp(self) -> Clamp:
        return _CLAMPS.get(self._unit.activation or "", "NO_CLAMP")

    def mask(self, tape: Tape) -> Buffer | None:
        return tape.get((self, "bits"))

    def bias_buffer(self) -> Buffer | None:
        bias = self._unit.bias
        return None if bias is None else self._values.buffer(f"{self._name}.bias", bias)

    def forward(
        self,
        segment: Segment,
        x: Map,
        tape: Tape | None,
        *,
        addend: Map | None = None,
        out: Buffer | None = None,
        waits: bool = False,
    ) -> Map:
        """addend: added where there is no norm or activation of its own. out: where the result
        goes. waits: whether another segment asks for the tape."""
        unit, channels = self._unit, self.out_channels
        size = out_size_of(unit, x.size)
        fused = self.fuses
        y = segment.new_map(channels, size)
        if out is not None and fused:
            y = Map(buffer=out, channels=channels, size=size)
        bits = None
        if tape is not None and fused and self.clamp != "NO_CLAMP":
            bits = tape[self, "bits"] = segment.kept(channels * size**2 // 8, waits=waits)
        self._emit_convolution(
            segment, x, y, self.bias_buffer() if not self._has_group_norm else None, bits, addend
        )
        if fused:
            return y
        assert addend is None or self._unit.activation is None
        if self._has_group_norm:
            y = self._emit_norm(segment, y, tape, out)
        if unit.activation == "h_swish":
            z = segment.new_map(channels, size) if tape is not None else y
            if out is not None:
                z = Map(buffer=out, channels=channels, size=size)
            segment.emit("HARD_SWISH", x=y.buffer, y=z.buffer, **map_sizes(y))
            if tape is not None:
                tape[self, "swish"] = y
            y = z
        return y

    def _emit_convolution(
        self,
        segment: Segment,
        x: Map,
        y: Map,
        bias: Buffer | None,
        bits: Buffer | None,
        addend: Map | None,
    ) -> None:
        operands: dict[str, Any] = {"bias": bias, "y": y.buffer, "bits": bits}
        code = "DEPTHWISE_FORWARD" if self._is_depthwise else "POINTWISE_FORWARD"
        if self._is_stem:
            code, operands["images"] = "STEM_FORWARD", x.buffer
        else:
            operands["x"] = x.buffer
        if code == "POINTWISE_FORWARD":
            operands["addend"] = None if addend is None else addend.buffer
        segment.emit(
            code,
            **self.weight_operands,
            **operands,
            **self.sizes(x),
            clamp=self.clamp if self.fuses else "NO_CLAMP",
            count=gathered_rows(y.size**2, 3 * self.kernel**2) if self._is_stem else 0,
        )

    @cached_property
    def weight_operands(self) -> dict[str, Any]:
        return self._add_weights()

    def weights_of_outputs(self, first: int, count: int) -> dict[str, Any]:
        """Of so many of the output channels."""
        return self._weights_of("outputs", first, count)

    def weights_of_inputs(self, first: int, count: int) -> dict[str, Any]:
        """Of so many of the input channels."""
        return self._weights_of("inputs", first, count)

    def _weights_of(self, side: str, first: int, count: int) -> dict[str, Any]:
        if (side, first) not in self._parts:
            self._parts[side, first] = self._add_weights(**{side: slice(first, first + count)})
        return self._parts[side, first]

    def sizes(self, x: Map) -> dict[str, Any]:
        padding = padding_of(self._unit, x.size)
        return {
            "kernel": self.kernel,
            "stride": self._unit.stride,
            "pad_top": padding.top,
            "pad_left": padding.left,
            "in_size": x.size,
            "out_size": out_size_of(self._unit, x.size),
            "in_channels": x.channels,
            "out_channels": self.out_channels,
            "groups": self._unit.groups,
        }

    def forward_part(
        self, segment: Segment, x: Map, first: int, count: int, bits: Buffer | None
    ) -> Map:
        """The stem's output channels from `first` on, of images x."""
        assert self._is_stem
        assert self.fuses
        sizes = self.sizes(x) | {"out_channels": count}
        y = segment.new_map(count, sizes["out_size"])
        bias = self.bias_buffer()
        segment.emit(
            "STEM_FORWARD",
            images=x.buffer,
            bias=None if bias is None else part_of(bias, 4 * first, 4 * count),
            y=y.buffer,
            bits=bits,
            clamp=self.clamp,
            count=gathered_rows(y.size**2, 3 * self.kernel**2),
            **self.weights_of_outputs(first, count),
            **sizes,
        )
        return y

    def forward_pooled(self, segment: Segment, x: Map, tape: Tape | None) -> Map:
        """A 1x1 convolution that fuses, and the mean over all places of its output."""
        assert self.fuses
        channels = self.out_channels
        pooled = segment.new_map(channels, 1)
        bits = None
        if tape is not None:
            tape[self, "x"] = x
            if self.clamp != "NO_CLAMP":
                bits = tape[self, "bits"] = segment.temporary(channels * x.size**2 // 8)
        segment.emit(
            "POOLED_FORWARD",
            x=x.buffer,
            bias=self.bias_buffer(),
            y=pooled.buffer,
            bits=bits,
            clamp=self.clamp,
            count=min(POOLED_CHANNELS, channels),
            **self.weight_operands,
            **self.sizes(x),
        )
        return pooled

    def backward_pooled(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        needs_input: bool,
        out: Buffer | None = None,
    ) -> Map | None:
        """From the gradient of what forward_pooled gave."""
        x: Map = tape[self, "x"]
        grad_x = None
        if needs_input:
            grad_x = segment.new_map(x.channels, x.size)
            if out is not None:
                grad_x = Map(buffer=out, channels=x.channels, size=x.size)
        bias = self.bias
        segment.emit(
            "POOLED_BACKWARD",
            grad=grad.buffer,
            bits=self.mask(tape),
            sums=None if bias is None else segment.gradient(bias),
            grad_x=None if grad_x is None else grad_x.buffer,
            count=min(POOLED_CHANNELS, self.out_channels),
            **self.weight_operands,
            **self.sizes(x),
        )
        if bias is not None:
            segment.finish(bias)
        return grad_x

    def _emit_norm(self, segment: Segment, y: Map, tape: Tape | None, out: Buffer | None) -> Map:
        statistics = segment.temporary(8 * (y.channels // GROUP_CHANNELS))
        z = y if tape is None else segment.new_map(y.channels, y.size)
        if out is not None and self._unit.activation != "h_swish":
            z = Map(buffer=out, channels=y.channels, size=y.size)
        segment.emit(
            "GROUP_NORM",
            x=y.buffer,
            y=z.buffer,
            statistics=statistics,
            clamp=self.clamp,
            **self._norm_fields(y),
        )
        if tape is not None:
            tape[self, "norm"] = y, statistics
        return z

    def _norm_fields(self, y: Map) -> dict[str, Any]:
        unit = self._unit
        assert unit.gain is not None
        assert unit.bias is not None
        assert unit.norm is not None
        return {
            "gain": self._values.buffer(f"{self._name}.gain", unit.gain),
            "bias": self.bias_buffer(),
            "value": unit.norm.eps,
            "groups": y.channels // GROUP_CHANNELS,
            **map_sizes(y),
        }

    def enter(self, segment: Segment, grad: Map, tape: Tape) -> Map:
        bias, sizes = self.bias, map_sizes(grad)
        if self._unit.activation == "h_swish":
            x = tape[self, "swish"]
            segment.emit("HARD_SWISH_BACKWARD", x=x.buffer, grad=grad.buffer, **sizes)
        bits = self.mask(tape)
        if bits is not None:
            segment.emit("CLOSE", bits=bits, grad=grad.buffer, **sizes)
        if self._has_group_norm:
            y, statistics = tape[self, "norm"]
            segment.emit(
                "GROUP_NORM_BACKWARD",
                x=y.buffer,
                statistics=statistics,
                grad=grad.buffer,
                grad_bias=None if bias is None else segment.gradient(bias),
                clamp=self.clamp,
                **self._norm_fields(y),
            )
        elif bias is not None:
            segment.emit("ADD_COLUMNS", grad=grad.buffer, sums=segment.gradient(bias), **sizes)
        if bias is not None:
            segment.finish(bias)
        return grad

    def input_gradient(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        mask: Buffer | None = None,
        sums: Buffer | None = None,
        addend: Map | None = None,
        out: Buffer | None = None,
    ) -> Map:
        x: Map = tape[self, "x"]
        grad_x = segment.new_map(x.channels, x.size)
        if out is not None:
            grad_x = Map(buffer=out, channels=x.channels, size=x.size)
        elif addend is not None and addend.spare and not self._is_depthwise:
            grad_x = addend
        operands: dict[str, Any] = {}
        if not self._is_depthwise:
            operands["addend"] = None if addend is None else addend.buffer
        segment.emit(
            "DEPTHWISE_BACKWARD" if self._is_depthwise else "POINTWISE_BACKWARD",
            grad=grad.buffer,
            grad_x=grad_x.buffer,
            mask=mask,
            sums=sums,
            **operands,
            **self.weight_operands,
            **self.sizes(x),
        )
        if self._is_depthwise and addend is not None:
            segment.emit("ADD", x=addend.buffer, y=grad_x.buffer, **map_sizes(grad_x))
        return grad_x


def gathered_rows(num_rows: int, taps: int) -> int:
    """How many outputs of a convolution are gathered at a time: enough to be worth the packing of
    its weights, in a cache's room where that is enough."""
    return max(1, min(num_rows, max(48, 12288 // taps)))


def map_sizes(x: Map) -> dict[str, Any]:
    return {"in_size": x.size, "in_channels": x.channels}
