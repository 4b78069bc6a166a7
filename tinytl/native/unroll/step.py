"""A training step as its plan says (tinytl.engine.step), and evaluation, as segments of
operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tinytl.description.plan import Plan
from tinytl.engine.blocks import Block
from tinytl.engine.network import Network
from tinytl.native.operations import load_scratch_bytes
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, Map, Storage
from tinytl.native.unroll.parts import BlockPart, Head, Part, StemPart, TailPart
from tinytl.native.unroll.stem_block import joined
from tinytl.native.unroll.units import Tape, Values


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Buffers that the trainer fills or reads itself. keep is None without dropout."""

    train_labels: Buffer
    train_keep: Buffer | None
    evaluate_images: Buffer
    evaluate_scratch: Buffer
    evaluate_logits: Buffer


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """A whole program, but for where its buffers lie."""

    segments: tuple[Segment, ...]
    ports: Ports


def unroll(
    network: Network,
    plan: Plan,
    values: Values,
    *,
    resolution: int,
    image_size: int,
    max_classes: int,
) -> Unrolled:
    """The operations of a step and of an evaluation of one image."""
    stem = StemPart(network, values, image_size=image_size)
    blocks = [
        BlockPart(block, f"blocks.{number}", values)
        for number, block in enumerate(network.blocks)
        if isinstance(block, Block)
    ]
    parts = joined([stem, *blocks, TailPart(network, values)])
    rate = network.config.dropout_rate
    head = Head(network.classifier, values, dropout_rate=rate, max_classes=max_classes)
    step = _Step(network, plan, parts, head, lambda segment: stem.load(segment, resolution))
    step.run()
    evaluation = Segment(phase="evaluation", micro_batch_size=1, batch_size=1)
    images = Map(buffer=evaluation.temporary(3 * resolution**2), channels=3, size=resolution)
    x = images
    for part in parts:
        x = part.forward(evaluation, x, None)
    logits = head.logits(evaluation, x)
    ports = Ports(
        train_labels=step.labels,
        train_keep=step.keep,
        evaluate_images=images.buffer,
        evaluate_scratch=evaluation.temporary(load_scratch_bytes(image_size, resolution)),
        evaluate_logits=logits.buffer,
    )
    return Unrolled(segments=(*step.segments, evaluation), ports=ports)


@dataclass(kw_only=True)
class _Stretch:
    """Parts that a micro-batch passes before the next one starts; see tinytl.engine.step.

    learns_from: the first of them that backward reaches.
    """

    parts: Sequence[Part]
    micro_batch_size: int
    recomputes: bool
    learns_from: int
    needs_input: bool
    input: Map | None = None
    tape: Tape | None = None

    @property
    def learns(self) -> bool:
        return self.learns_from < len(self.parts)


class _Step:
    def __init__(
        self,
        network: Network,
        plan: Plan,
        parts: list[Part],
        head: Head,
        load: Callable[[Segment], Map],
    ) -> None:
        """load: the images of a micro-batch. Where a map is None, it is the images."""
        self._plan = plan
        self._head = head
        self.segments: list[Segment] = []
        batch = plan.batch_size
        self._load = load
        self.labels = _whole(2 * batch)
        features = network.classifier.in_features
        self.keep = _whole(batch * features // 8) if network.config.dropout_rate else None
        first = next((i for i, part in enumerate(parts) if part.learns), len(parts))
        bounds = pairwise(plan.part_starts(network.config.part_stages))
        self._stretches = [
            _Stretch(
                parts=parts[start:stop],
                micro_batch_size=stretch.micro_batch_size,
                recomputes=stretch.recomputes,
                learns_from=max(first - start, 0),
                needs_input=first < start,
            )
            for stretch, (start, stop) in zip(plan.stretches, bounds, strict=True)
        ]

    def run(self) -> None:
        *early, last = self._stretches
        x: Map | None = None
        for stretch in early:
            x = self._forward(stretch, x)
        grad = self._turn(last, x)
        for stretch in reversed(early):
            if grad is None or not stretch.learns:
                break
            grad = self._backward(stretch, grad)

    def _segment(self, stretch: _Stretch) -> Segment:
        segment = Segment(
            phase="training",
            micro_batch_size=stretch.micro_batch_size,
            batch_size=self._plan.batch_size,
        )
        self.segments.append(segment)
        return segment

    def _slice(self, segment: Segment, whole: Map, *, spare: bool) -> Map:
        """A micro-batch's part of a map of the whole batch."""
        storage = whole.buffer.storage
        assert storage is not None
        return replace(whole, buffer=segment.slices(storage, whole.image_bytes), spare=spare)

    def _input(self, segment: Segment, x: Map | None, *, spare: bool) -> Map:
        """The micro-batch's part of a stretch's input."""
        return self._load(segment) if x is None else self._slice(segment, x, spare=spare)

    def _forward(self, stretch: _Stretch, x: Map | None) -> Map:
        """The whole batch's output."""
        segment = self._segment(stretch)
        is_taped = stretch.learns and not stretch.recomputes
        stretch.tape = {} if is_taped else None
        stretch.input = x
        first = stretch.parts[0]
        is_held = stretch.learns and (
            stretch.recomputes
            or (stretch.learns_from == 0 and first.keeps_input(needs_input=stretch.needs_input))
        )
        passing = self._input(segment, x, spare=not is_held)
        return self._run_forward(segment, stretch, passing, stretch.tape, hands_on=True)

    def _run_forward(
        self,
        segment: Segment,
        stretch: _Stretch,
        x: Map,
        tape: Tape | None,
        *,
        hands_on: bool = False,
    ) -> Map:
        """hands_on: the result, and what is taped, are for other segments."""
        last = len(stretch.parts) - 1
        waits = hands_on and tape is not None
        for position, part in enumerate(stretch.parts):
            needs_input = stretch.needs_input or position > stretch.learns_from
            own = tape if position >= stretch.learns_from else None
            is_kept = False  # by the next part
            if waits and position < last and position + 1 >= stretch.learns_from:
                is_kept = stretch.parts[position + 1].keeps_input(needs_input=True)
            out = None
            if not segment.is_single and (is_kept or (hands_on and position == last)):
                out = self._room_for_output(segment, part, x)
            x = part.forward(segment, x, own, needs_input=needs_input, out=out, waits=waits)
            if out is not None and position == last:
                storage = out.storage
                assert storage is not None
                x = replace(x, buffer=Buffer(storage=storage, num_bytes=storage.num_bytes))
            elif is_kept:
                x = replace(x, spare=False)
        return x

    def _room_for_output(self, segment: Segment, part: Part, x: Map) -> Buffer:
        """For the whole batch. The part is run on a segment that is thrown away, to learn what
        size its output has."""
        trial = Segment(phase="training", micro_batch_size=1, batch_size=1)
        y = part.forward(trial, replace(x, spare=False), None)
        storage = Storage(num_bytes=y.image_bytes * self._plan.batch_size, spans_passes=True)
        return segment.slices(storage, y.image_bytes)

    def _turn(self, stretch: _Stretch, x: Map | None) -> Map | None:
        """The last stretch: forward and backward of each micro-batch. The gradient of x."""
        segment = self._segment(stretch)
        tape: Tape = {}
        passing = self._input(segment, x, spare=True)
        features = self._run_forward(segment, stretch, passing, tape if stretch.learns else None)
        storages = [None if b is None else b.storage for b in (self.labels, self.keep)]
        labels, keep = (
            None if s is None else segment.slices(s, s.num_bytes // self._plan.batch_size)
            for s in storages
        )
        assert labels is not None
        grad = self._head.turn(segment, features, labels, keep, learns=stretch.learns)
        if grad is None:
            return None
        return self._run_backward(segment, stretch, grad, tape, x)

    def _backward(self, stretch: _Stretch, grad: Map) -> Map | None:
        """From the gradient of the stretch's output to that of its input, where it is needed."""
        segment = self._segment(stretch)
        tape, x = stretch.tape, stretch.input
        if tape is None:
            tape = {}
            passing = self._input(segment, x, spare=True)
            self._run_forward(segment, stretch, passing, tape)
        part = self._slice(segment, grad, spare=True)
        return self._run_backward(segment, stretch, part, tape, x)

    def _run_backward(
        self, segment: Segment, stretch: _Stretch, grad: Map, tape: Tape, x: Map | None
    ) -> Map | None:
        """x: the stretch's input, whose place the gradient takes where micro-batches pass one by
        one: each has done with its part by then."""
        passing: Map | None = grad
        for position in reversed(range(stretch.learns_from, len(stretch.parts))):
            assert passing is not None
            needs_input = stretch.needs_input or position > stretch.learns_from
            out = None
            if x is not None and position == 0 and needs_input and not segment.is_single:
                out = self._slice(segment, x, spare=True).buffer
            passing = stretch.parts[position].backward(
                segment, passing, tape, needs_input=needs_input, out=out
            )
        if passing is None or segment.is_single:
            return passing
        return None if x is None else replace(x, spare=True)


def _whole(num_bytes: int) -> Buffer:
    """Of the whole batch."""
    return Buffer(storage=Storage(num_bytes=num_bytes, spans_passes=True), num_bytes=num_bytes)
