"""The parts of a network that a map passes (tinytl.engine.blocks), and its head, as operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tinytl.native.operations import IS_BFLOAT16
from tinytl.native.unroll.chain import Link, SqueezeExcite, run_chain, run_chain_backward
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.inverted import InvertedBranch
from tinytl.native.unroll.lite_residual import LiteResidualLink
from tinytl.native.unroll.memory import Buffer, Map
from tinytl.native.unroll.units import Tape, Unit, Values, map_sizes

if TYPE_CHECKING:
    from torch import nn

    from tinytl.engine.blocks import Block
    from tinytl.engine.network import Network


class Part(Protocol):
    """waits: whether the tape is asked for by another segment. out: where the result goes."""

    @property
    def learns(self) -> bool: ...

    def keeps_input(self, *, needs_input: bool) -> bool:
        """Whether backward asks for the part's input, not only for a tape."""

    def forward(
        self,
        segment: Segment,
        x: Map,
        tape: Tape | None,
        *,
        needs_input: bool = True,
        out: Buffer | None = None,
        waits: bool = False,
    ) -> Map: ...

    def backward(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        needs_input: bool,
        out: Buffer | None = None,
    ) -> Map | None: ...


def _fuse(links: Sequence[Link]) -> bool:
    return all(link.fuses for link in links)


class StemPart:
    """The first convolution, from pixels. image_size: of the stored images."""

    def __init__(self, network: Network, values: Values, *, image_size: int) -> None:
        self.unit = Unit(network.first_conv, "first_conv", values, is_stem=True)
        self.is_joined = False
        """Whether the next part does its work; images then pass through."""
        self._image_size = image_size

    def load(self, segment: Segment, resolution: int) -> Map:
        """The micro-batch's images: they need not be held, as they can be loaded again."""
        images = segment.temporary(3 * resolution**2)
        segment.emit(
            "LOAD_IMAGES",
            images=images,
            in_size=resolution,
            out_size=self._image_size,
            in_channels=3,
        )
        return Map(buffer=images, channels=3, size=resolution, spare=False)

    @property
    def learns(self) -> bool:
        return self.unit.learns and not self.is_joined

    def keeps_input(self, *, needs_input: bool) -> bool:
        return False  # they are loaded again

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
        if self.is_joined:
            return x
        if tape is not None and not self.unit.fuses:
            tape[self, "resolution"] = x.size
            tape = None
        return run_chain([self.unit], segment, x, tape, out=out, waits=waits)

    def backward(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        needs_input: bool,
        out: Buffer | None = None,
    ) -> None:
        if not self.unit.fuses:
            images = self.load(segment, tape[self, "resolution"])
            run_chain([self.unit], segment, images, tape)
            self.unit.enter(segment, grad, tape)
            return
        bias, bits = self.unit.bias, self.unit.mask(tape)
        assert bias is not None
        segment.emit(
            "ADD_COLUMNS",
            grad=grad.buffer,
            bits=bits,
            sums=segment.gradient(bias),
            in_size=grad.size,
            in_channels=grad.channels,
        )
        segment.finish(bias)


class BlockPart:
    """A mobile inverted residual block."""

    def __init__(self, block: Block, name: str, values: Values) -> None:
        units = [("expand", block.expand), ("depthwise", block.depthwise)]
        links: list[Link] = [
            Unit(unit, f"{name}.{kind}", values) for kind, unit in units if unit is not None
        ]
        if block.squeeze_excite is not None:
            links.append(SqueezeExcite(block.squeeze_excite, f"{name}.squeeze_excite", values))
        links.append(Unit(block.project, f"{name}.project", values))
        self._links = links
        self.branch = InvertedBranch.of(links)
        self._shortcut = block.config.shortcut
        self._lite = None
        if block.lite_residual is not None:
            self._lite = LiteResidualLink(block.lite_residual, f"{name}.lite_residual", values)
        self.learns = any(parameter.requires_grad for parameter in block.parameters())

    @property
    def has_way_around(self) -> bool:
        """Whether its input goes another way to its output, too."""
        return self._shortcut or self._lite is not None

    def keeps_input(self, *, needs_input: bool) -> bool:
        return needs_input and not _fuse(self._links)

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
        recomputes = tape is not None and self.keeps_input(needs_input=needs_input)
        pooled = None
        if self._lite is not None:
            is_taped = tape is not None and not recomputes
            pooled = self._lite.pool(segment, x, waits=is_taped and waits)
            if tape is not None and is_taped:
                tape[self, "pooled"] = pooled
        if tape is not None and recomputes:
            tape[self, "x"] = x
        in_place = self._shortcut and x.spare and not recomputes and out is None
        in_place = in_place and self.branch is None
        inner = tape if needs_input and not recomputes else None
        y = self._run(segment, x, inner, out=x.buffer if in_place else out, waits=waits)
        if self._lite is not None and pooled is not None:
            self._lite.forward(segment, pooled, y)
        return y

    def _run(
        self, segment: Segment, x: Map, tape: Tape | None, *, out: Buffer | None, waits: bool
    ) -> Map:
        """The main branch, with the shortcut."""
        if self.branch is not None:
            shortcut = x if self._shortcut else None
            return self.branch.forward(segment, x, tape, addend=shortcut, out=out, waits=waits)
        project = self._links[-1]
        addend = x if self._shortcut and project.fuses else None
        if self._shortcut and not project.fuses and out is x.buffer:
            out = None
        y = run_chain(self._links, segment, x, tape, addend=addend, out=out, waits=waits)
        if self._shortcut and addend is None:
            segment.emit("ADD", x=x.buffer, y=y.buffer, in_size=y.size, in_channels=y.channels)
        return y

    def backward(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        needs_input: bool,
        out: Buffer | None = None,
    ) -> Map | None:
        grad_pooled = None
        x: Map | None = tape.get((self, "x"))
        if self._lite is not None:
            pooled = tape[self, "pooled"] if x is None else self._lite.pool(segment, x)
            grad_pooled = self._lite.backward(segment, grad, pooled, needs_input=needs_input)
        if not needs_input:  # then the main branch has nothing that learns
            return None
        grad_x = self._run_backward(segment, grad, tape, x, out)
        if self._lite is not None and grad_pooled is not None:
            self._lite.add_pool_gradient(segment, grad_pooled, grad_x)
        return grad_x

    def _run_backward(
        self, segment: Segment, grad: Map, tape: Tape, x: Map | None, out: Buffer | None
    ) -> Map:
        """Of the main branch and the shortcut."""
        shortcut = grad if self._shortcut else None
        if self.branch is not None:
            entered = self._links[-1].enter(segment, grad, tape)
            return self.branch.backward(segment, entered, tape, addend=shortcut, out=out)
        if x is not None:
            self._run_again(segment, x, tape)
        entering = grad
        if self._shortcut and not self._links[-1].fuses:
            entering = segment.new_map(grad.channels, grad.size)
            sizes: dict[str, Any] = {"in_size": grad.size, "in_channels": grad.channels}
            segment.emit("COPY", x=grad.buffer, y=entering.buffer, **sizes)
        return run_chain_backward(self._links, segment, entering, tape, addend=shortcut, out=out)

    def _run_again(self, segment: Segment, x: Map, tape: Tape) -> None:
        """What backward needs of the main branch; its output is not among that."""
        *before, project = self._links
        y = run_chain(before, segment, x, tape)
        tape[project, "x"] = y
        if not project.fuses:
            run_chain([project], segment, y, tape)


class TailPart:
    """The last convolutions and the pooling; its output is a map of one position."""

    def __init__(self, network: Network, values: Values) -> None:
        mix = Unit(network.feature_mix, "feature_mix", values)
        if network.final_expand is None:
            self._before, self._after = mix, None
        else:
            self._before = Unit(network.final_expand, "final_expand", values)
            self._after = mix
        links = [self._before] if self._after is None else [self._before, self._after]
        self._fuses = _fuse(links)
        self.learns = any(link.learns for link in links)

    def keeps_input(self, *, needs_input: bool) -> bool:
        return not self._fuses

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
        if tape is not None and not self._fuses:
            tape[self, "x"] = x
            tape = None
        return self._run(segment, x, tape)

    def _run(self, segment: Segment, x: Map, tape: Tape | None) -> Map:
        if self._before.fuses:
            pooled = self._before.forward_pooled(segment, x, tape)
        else:
            y = run_chain([self._before], segment, x, tape)
            pooled = segment.new_map(y.channels, 1)
            sizes = map_sizes(y)
            segment.emit("MEAN", x=y.buffer, y=pooled.buffer, **sizes)
            if tape is not None:
                tape[self, "map"] = y
        if self._after is None:
            return pooled
        return run_chain([self._after], segment, pooled, tape)

    def backward(
        self,
        segment: Segment,
        grad: Map,
        tape: Tape,
        *,
        needs_input: bool,
        out: Buffer | None = None,
    ) -> Map | None:
        x: Map | None = tape.get((self, "x"))
        if x is not None:
            self._run(segment, x, tape)
        if self._after is not None:
            grad = run_chain_backward([self._after], segment, grad, tape)
        if self._before.fuses:
            return self._before.backward_pooled(
                segment, grad, tape, needs_input=needs_input, out=out
            )
        y: Map = tape[self, "map"]
        spread = segment.new_map(y.channels, y.size)
        segment.emit("MEAN_BACKWARD", grad=grad.buffer, grad_x=spread.buffer, **map_sizes(y))
        if not needs_input:
            return None
        return run_chain_backward([self._before], segment, spread, tape, out=out)


class Head:
    """Dropout, classifier and loss. max_classes: what the classifier has room for."""

    def __init__(
        self, classifier: nn.Linear, values: Values, *, dropout_rate: float, max_classes: int
    ) -> None:
        weight, bias = (values.trained(f"classifier.{name}") for name in ("weight", "bias"))
        assert weight is not None
        assert bias is not None
        self._weight, self._bias = weight, bias
        self._keep_factor = 1 / (1 - dropout_rate)
        self._sizes: dict[str, Any] = {
            "in_channels": classifier.in_features,
            "out_channels": max_classes,
            "flags": IS_BFLOAT16 if weight.is_bfloat16 else 0,
            "count": 1,
        }

    def logits(self, segment: Segment, features: Map) -> Map:
        logits = segment.new_map(self._sizes["out_channels"], 1)
        segment.emit(
            "CONVOLVE",
            x=features.buffer,
            weights=self._weight.values,
            bias=self._bias.values,
            y=logits.buffer,
            **self._sizes,
        )
        return logits

    def turn(
        self, segment: Segment, features: Map, labels: Buffer, keep: Buffer | None, *, learns: bool
    ) -> Map | None:
        """From the features to their gradient, where parts before the head learn."""
        if keep is not None:
            self._drop(segment, features, keep)
        grad = self.logits(segment, features)
        segment.emit("CROSS_ENTROPY", labels=labels, logits=grad.buffer, **self._sizes)
        grad_features = None
        if learns:
            grad_features = segment.new_map(features.channels, 1)
            segment.emit(
                "CONVOLUTION_INPUT_GRADIENT",
                grad=grad.buffer,
                weights=self._weight.values,
                grad_x=grad_features.buffer,
                **self._sizes,
            )
            if keep is not None:
                self._drop(segment, grad_features, keep)
        segment.emit(
            "CONVOLUTION_WEIGHT_GRADIENT",
            grad=grad.buffer,
            x=features.buffer,
            grad_weights=segment.gradient(self._weight),
            **self._sizes,
        )
        segment.finish(self._weight)
        segment.emit(
            "ADD_COLUMNS",
            grad=grad.buffer,
            sums=segment.gradient(self._bias),
            in_channels=self._sizes["out_channels"],
        )
        segment.finish(self._bias)
        return grad_features

    def _drop(self, segment: Segment, features: Map, keep: Buffer) -> None:
        segment.emit(
            "KEEP_SOME",
            bits=keep,
            values=features.buffer,
            in_channels=features.channels,
            value=self._keep_factor,
        )
