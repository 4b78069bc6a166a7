"""A block's main branch as one operation, whose wide maps never exist (kernels/inverted.h).

Where all that its convolutions need after them is a bias and a clamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytl.native.operations import NO_EXPANSION
from tinytl.native.unroll.chain import Link
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, Map
from tinytl.native.unroll.units import Tape, Unit

_SLICE_FLOATS = 1 << 15
"""Of both wide maps together, what is worked on at a time: it stays in a cache. At least 16
channels, else products are slow, but for the largest maps: their slices would take most."""
_MIN_WIDTH, _MAX_WIDTH = 16, 96
_LARGE_FLOATS, _WIDTH_OF_LARGE = 1 << 17, 8


def width_of(segment: Segment, places: int) -> int:
    """Channels that are run at a time, where both wide maps have so many places together."""
    if _MIN_WIDTH * places > _LARGE_FLOATS:
        return _WIDTH_OF_LARGE
    fitting = _SLICE_FLOATS // (segment.micro_batch_size * places) // 16 * 16
    return max(_MIN_WIDTH, min(_MAX_WIDTH, fitting))


class InvertedBranch:
    """1x1 expand (perhaps), depthwise, 1x1 project."""

    def __init__(self, units: Sequence[Unit]) -> None:
        *before, self.middle, self.project = units
        self.expand = before[0] if before else None

    @staticmethod
    def of(links: Sequence[Link]) -> InvertedBranch | None:
        """None where the links are of another kind."""
        units = [link for link in links if isinstance(link, Unit)]
        if len(units) < len(links) or not all(unit.fuses for unit in units):
            return None
        return InvertedBranch(units)

    def forward(
        self,
        segment: Segment,
        x: Map,
        tape: Tape | None,
        *,
        addend: Map | None,
        out: Buffer | None,
        waits: bool,
    ) -> Map:
        sizes = self._sizes(segment, x)
        y = segment.new_map(sizes["out_channels"], sizes["out_size"])
        if out is not None:
            y = Map(buffer=out, channels=y.channels, size=y.size)
        channels = self.middle.out_channels
        if tape is not None:
            tape[self, "x"] = x
            bits = {"middle": y.size}
            if self.expand is not None:
                bits["expand"] = x.size
            for kind, size in bits.items():
                tape[self, kind] = segment.kept(channels * size**2 // 8, waits=waits)
        segment.emit(
            "INVERTED_FORWARD",
            x=x.buffer,
            addend=None if addend is None else addend.buffer,
            y=y.buffer,
            **self._weights(with_biases=True),
            **self._bits(tape),
            **sizes,
        )
        return y

    def backward(
        self, segment: Segment, grad: Map, tape: Tape, *, addend: Map | None, out: Buffer | None
    ) -> Map:
        """grad: of the output, whose bias has been seen to; it is left as it is."""
        x: Map = tape[self, "x"]
        grad_x = segment.new_map(x.channels, x.size)
        if out is not None:
            grad_x = Map(buffer=out, channels=x.channels, size=x.size)
        units = {"middle": self.middle, "expand": self.expand}
        biases = {kind: unit.bias for kind, unit in units.items() if unit is not None}
        sums: dict[str, Any] = {
            f"{kind}_sums": segment.gradient(bias)
            for kind, bias in biases.items()
            if bias is not None
        }
        fused = addend if self.expand is not None else None
        segment.emit(
            "INVERTED_BACKWARD",
            grad=grad.buffer,
            addend=None if fused is None else fused.buffer,
            grad_x=grad_x.buffer,
            **self._weights(with_biases=False),
            **self._bits(tape),
            **sums,
            **self._sizes(segment, x),
        )
        for bias in biases.values():
            if bias is not None:
                segment.finish(bias)
        if addend is not None and fused is None:
            sizes: dict[str, Any] = {"in_size": x.size, "in_channels": x.channels}
            segment.emit("ADD", x=addend.buffer, y=grad_x.buffer, **sizes)
        return grad_x

    def _bits(self, tape: Tape | None) -> dict[str, Any]:
        kinds = ("expand", "middle")
        return {f"{kind}_bits": None if tape is None else tape.get((self, kind)) for kind in kinds}

    def _weights(self, *, with_biases: bool) -> dict[str, Any]:
        operands: dict[str, Any] = {}
        for kind, unit in (
            ("expand", self.expand),
            ("middle", self.middle),
            ("project", self.project),
        ):
            if unit is None:
                continue
            found = unit.weight_operands
            operands |= {f"{kind}_weights": found["weights"], f"{kind}_scale": found["scale"]}
            if with_biases:
                operands[f"{kind}_bias"] = unit.bias_buffer()
        return operands

    def _sizes(self, segment: Segment, x: Map) -> dict[str, Any]:
        middle, project = self.middle, self.project
        channels = middle.out_channels
        sizes = middle.sizes(Map(buffer=x.buffer, channels=channels, size=x.size))
        expanded = x.size**2 if self.expand is not None else 0
        width = width_of(segment, expanded + sizes["out_size"] ** 2)
        return sizes | {
            "groups": 1,
            "in_channels": x.channels,
            "out_channels": project.out_channels,
            "number": channels,
            "count": min(width, channels),
            "clamp": middle.clamp,
            "flags": 0 if self.expand is not None else NO_EXPANSION,
        }
