"""What a map passes within a part, one link after another, forward and backward.

What a link's rectifier closes, and the sum that its bias learns from, is left to the operation
that hands it its gradient, where that can do it on the way: where the link fuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from tinytl.native.operations import ADDS
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, Map
from tinytl.native.unroll.parameters import Parameter
from tinytl.native.unroll.units import Tape, Unit, Values, map_sizes

if TYPE_CHECKING:
    from tinytl.engine.layers import SqueezeExcite as SqueezeExciteModule


class Link(Protocol):
    """What a map passes within a part, one after another."""

    @property
    def fuses(self) -> bool:
        """Whether the operation that comes before in backward does its mask and bias."""

    def mask(self, tape: Tape) -> Buffer | None: ...

    @property
    def bias(self) -> Parameter | None:
        """Where it is trained."""

    def forward(
        self,
        segment: Segment,
        x: Map,
        tape: Tape | None,
        *,
        addend: Map | None,
        out: Buffer | None,
    ) -> Map: ...

    def enter(self, segment: Segment, grad: Map, tape: Tape) -> Map:
        """From the gradient of the output to that of the convolution's own, where not fused."""

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
    ) -> Map: ...


class SqueezeExcite:
    """tinytl.engine.layers.SqueezeExcite: x * hard_sigmoid(expand(relu(reduce(mean(x)))))."""

    fuses = False
    bias = None

    def __init__(self, module: SqueezeExciteModule, name: str, values: Values) -> None:
        self._reduce = Unit(module.reduce, f"{name}.reduce", values)
        self._expand = Unit(module.expand, f"{name}.expand", values)

    def mask(self, tape: Tape) -> None:
        return None

    def forward(
        self,
        segment: Segment,
        x: Map,
        tape: Tape | None,
        *,
        addend: Map | None = None,
        out: Buffer | None = None,
    ) -> Map:
        pooled = segment.new_map(x.channels, 1)
        segment.emit("MEAN", x=x.buffer, y=pooled.buffer, **map_sizes(x))
        gate = run_chain([self._reduce, self._expand], segment, pooled, tape)
        y = x if tape is None else segment.new_map(x.channels, x.size)
        segment.emit("OPEN_GATE", gate=gate.buffer, x=x.buffer, y=y.buffer, **map_sizes(x))
        if tape is not None:
            tape[self, "gated"] = x, gate
        return y

    def enter(self, segment: Segment, grad: Map, tape: Tape) -> Map:
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
        assert (mask, sums, addend, out) == (None,) * 4
        x, gate = tape[self, "gated"]
        grad_gate = segment.new_map(x.channels, 1)
        segment.emit(
            "OPEN_GATE_BACKWARD",
            gate=gate.buffer,
            x=x.buffer,
            grad=grad.buffer,
            grad_gate=grad_gate.buffer,
            **map_sizes(x),
        )
        links = [self._reduce, self._expand]
        grad_pooled = run_chain_backward(links, segment, grad_gate, tape)
        segment.emit(
            "MEAN_BACKWARD",
            grad=grad_pooled.buffer,
            grad_x=grad.buffer,
            flags=ADDS,
            **map_sizes(x),
        )
        return grad


def run_chain(
    links: Sequence[Link],
    segment: Segment,
    x: Map,
    tape: Tape | None,
    *,
    addend: Map | None = None,
    out: Buffer | None = None,
    waits: bool = False,
) -> Map:
    """Through all links; the last one adds the addend and writes to out."""
    for link in links:
        if tape is not None:
            tape[link, "x"] = x
        last: dict[str, Any] = {"addend": addend, "out": out} if link is links[-1] else {}
        if isinstance(link, Unit):
            x = link.forward(segment, x, tape, waits=waits, **last)
        else:
            x = link.forward(segment, x, tape, **last)
    return x


def run_chain_backward(
    links: Sequence[Link],
    segment: Segment,
    grad: Map,
    tape: Tape,
    *,
    entered: bool = False,
    addend: Map | None = None,
    out: Buffer | None = None,
) -> Map:
    """From the gradient of the last link's output to that of the first one's input, with the
    addend added. entered: whether the last link's mask and bias have been seen to."""
    if not entered:
        grad = links[-1].enter(segment, grad, tape)
    for link, before in pairwise(reversed(links)):
        if not before.fuses or isinstance(link, SqueezeExcite):
            grad = before.enter(segment, link.input_gradient(segment, grad, tape), tape)
            continue
        bias = before.bias
        sums = None if bias is None else segment.gradient(bias)
        grad = link.input_gradient(segment, grad, tape, mask=before.mask(tape), sums=sums)
        if bias is not None:
            segment.finish(bias)
    return links[0].input_gradient(segment, grad, tape, addend=addend, out=out)
