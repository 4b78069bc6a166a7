"""The first convolution and the block behind it as one part: the map between them never exists.

It would be the largest of all. Where the block has no expansion, the map's channels stay apart
until they are projected, so both are run for some of them after the others. Sums keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinytl.native.operations import NO_EXPANSION
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.inverted import width_of
from tinytl.native.unroll.memory import Buffer, Map, part_of
from tinytl.native.unroll.parts import BlockPart, Part, StemPart
from tinytl.native.unroll.units import Tape, map_sizes

STEM_CHANNELS = 16
"""At a time: with less, products are slow."""


def joined(parts: Sequence[Part]) -> list[Part]:
    """The parts of a network; where that can be, the second one does the first one's work, too."""
    stem, block, *others = parts
    assert isinstance(stem, StemPart)
    if isinstance(block, BlockPart) and StemBlockPart.can_be(stem, block):
        return [stem, StemBlockPart(stem, block), *others]
    return list(parts)


class StemBlockPart:
    """A first convolution, then a block of a depthwise and a 1x1 convolution."""

    def __init__(self, stem: StemPart, block: BlockPart) -> None:
        assert block.branch is not None
        self._stem = stem.unit
        self._middle, self._project = block.branch.middle, block.branch.project
        self.learns = stem.learns
        stem.is_joined = True
        channels = self._stem.out_channels
        self._slices = [
            (first, min(STEM_CHANNELS, channels - first))
            for first in range(0, channels, STEM_CHANNELS)
        ]

    @staticmethod
    def can_be(stem: StemPart, block: BlockPart) -> bool:
        branch = block.branch
        is_plain = branch is not None and branch.expand is None and not block.has_way_around
        return is_plain and stem.unit.fuses and stem.learns == block.learns

    def keeps_input(self, *, needs_input: bool) -> bool:
        return False  # images are loaded again

    def forward(
        self,
        segment: Segment,
        x: Map,
        tape: Tape | None,
        *,
        needs_input: bool = True,
        out: Buffer | None = None,
        waits: bool = False,
    ) -> Map:
        """x: images."""
        size = self._stem.sizes(x)["out_size"]
        sizes = self._middle.sizes(Map(buffer=x.buffer, channels=0, size=size))
        y = segment.new_map(self._project.out_channels, sizes["out_size"])
        if out is not None:
            y = Map(buffer=out, channels=y.channels, size=y.size)
        if tape is not None:
            tape[self, "size"] = size
        for first, count in self._slices:
            bits = dict.fromkeys(("stem", "middle"))
            if tape is not None:
                bits = tape[self, first] = {
                    "stem": segment.kept(count * size**2 // 8, waits=waits),
                    "middle": segment.kept(count * y.size**2 // 8, waits=waits),
                }
            between = self._stem.forward_part(segment, x, first, count, bits["stem"])
            segment.emit(
                "INVERTED_FORWARD",
                x=between.buffer,
                addend=y.buffer if first else None,
                y=y.buffer,
                middle_bits=bits["middle"],
                middle_bias=_floats(self._middle.bias_buffer(), first, count),
                project_bias=None if first else self._project.bias_buffer(),
                **self._fields(segment, between, first),
            )
        return y

    def backward(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        needs_input: bool,
        out: Buffer | None = None,
    ) -> None:
        entered = self._project.enter(segment, grad, tape)
        size = tape[self, "size"]
        sums = {
            unit: None if unit.bias is None else segment.gradient(unit.bias)
            for unit in (self._middle, self._stem)
        }
        for first, count in self._slices:
            bits = tape[self, first]
            between = segment.new_map(count, size)
            segment.emit(
                "INVERTED_BACKWARD",
                grad=entered.buffer,
                grad_x=between.buffer,
                middle_bits=bits["middle"],
                middle_sums=_floats(sums[self._middle], first, count),
                **self._fields(segment, between, first),
            )
            segment.emit(
                "ADD_COLUMNS",
                grad=between.buffer,
                bits=bits["stem"],
                sums=_floats(sums[self._stem], first, count),
                **map_sizes(between),
            )
        for unit in sums:
            if unit.bias is not None:
                segment.finish(unit.bias)

    def _fields(self, segment: Segment, between: Map, first: int) -> dict[str, Any]:
        """Weights and sizes of the block for some of its channels."""
        count = between.channels
        middle = self._middle.weights_of_outputs(first, count)
        project = self._project.weights_of_inputs(first, count)
        sizes = self._middle.sizes(between)
        return sizes | {
            "middle_weights": middle["weights"],
            "middle_scale": middle["scale"],
            "project_weights": project["weights"],
            "project_scale": project["scale"],
            "groups": 1,
            "in_channels": count,
            "out_channels": self._project.out_channels,
            "number": count,
            "count": min(width_of(segment, sizes["out_size"] ** 2), count),
            "clamp": self._middle.clamp,
            "flags": NO_EXPANSION,
        }


def _floats(values: Buffer | None, first: int, count: int) -> Buffer | None:
    return None if values is None else part_of(values, 4 * first, 4 * count)
