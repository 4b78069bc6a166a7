"""What a part of a network takes in the trainer's arena, at its place in a stretch of a plan.

A part is unrolled alone, forward and backward, between an input and a gradient that are given;
then its buffers' lives, as tinytl.native.layout has them, are known but for what other parts and
segments add. The step (tinytl.native.pricing.step) adds that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tinytl.description.config import BlockConfig, ConvConfig, NormConfig, Padding, conv_size
from tinytl.description.method import Method
from tinytl.description.plan import OptimizerBits, TrainedBits
from tinytl.native.arena import aligned
from tinytl.native.formats.records import BUFFER, OP
from tinytl.native.operations import Op
from tinytl.native.pricing.blueprint import Blueprint, FrozenSizes
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, Map, Storage
from tinytl.native.unroll.parameters import PERSISTENT
from tinytl.native.unroll.parts import BlockPart, Head, Part, StemPart, TailPart
from tinytl.native.unroll.stem_block import joined
from tinytl.native.unroll.units import Tape, Values

_BUFFERS_OF_PARAMETER = 5


class Place(NamedTuple):
    """Where a part is: what of it other parts and segments decide.

    taped: whether backward follows, in this segment or (waits) in another one. needs_input:
    whether it hands a gradient on. counts_x, counts_grad: whether its input, and its output's
    gradient, end with it; else they are held anyway. spare: its input may be written over.
    has_room: its input was given room for the whole batch, for it to keep. out, out_backward: its
    results are written where there is room already.
    """

    micro_batch_size: int
    taped: bool = False
    waits: bool = False
    needs_input: bool = True
    counts_x: bool = True
    counts_grad: bool = True
    spare: bool = True
    has_room: bool = False
    out: bool = False
    out_backward: bool = False


PLAIN = Place(micro_batch_size=1)


class Row(NamedTuple):
    """Bytes of the arena, each buffer aligned.

    forward, backward: the most at a time, beside what is held anyway and what parts before keep.
    kept: from forward to backward; room: for as long as forward's segment. gradients: for as long
    as backward's segment, where micro-batches share them. records: of the program.
    counts_y, counts_grad_x: whether what it hands on counts where it is taken.
    """

    forward: int
    kept: int
    room: int
    backward: int
    gradients: int
    records: int
    counts_y: bool
    counts_grad_x: bool


class Stored:
    """The values of a part, once it has asked for all of them. frozen_bytes: of those that are not
    trained; records: of all in the program."""

    def __init__(self, drawing: Blueprint, values: Values) -> None:
        frozen = values.frozen
        assert isinstance(frozen, FrozenSizes)
        self.frozen_bytes = frozen.num_bytes
        num_buffers = _BUFFERS_OF_PARAMETER * len(drawing.trained) + frozen.num_buffers
        self.records = BUFFER.size * num_buffers
        self._drawing = drawing
        self.state = lru_cache(maxsize=8)(self._state)

    def _state(self, optimizer_bits: OptimizerBits, trained_bits: TrainedBits) -> tuple[int, int]:
        """Bytes of the trained values, and with their moments."""
        parameters = self._drawing.parameters(optimizer_bits, trained_bits)
        return aligned(parameters.value_bytes), aligned(parameters.state_bytes)


class PartCost:
    """A part and what it takes. channels, size: of its input; x_bytes: of the whole batch's.
    loads: the stem, where the input is images, which it loads."""

    def __init__(
        self,
        part: Part,
        drawing: Blueprint,
        values: Values,
        batch_size: int,
        *,
        channels: int,
        size: int,
        loads: StemPart | None = None,
    ) -> None:
        self._part = part
        self._loads = loads
        self._batch_size = batch_size
        self._channels, self._size = channels, size
        self.x_bytes = aligned(4 * channels * size**2 * batch_size)
        self.learns = part.learns
        self.row = lru_cache(maxsize=None)(self._make_row)
        self.row(PLAIN)
        self.stored = Stored(drawing, values)
        self.keeps_input = lru_cache(maxsize=2)(self._keeps_input)

    def _keeps_input(self, needs_input: bool) -> bool:
        """See tinytl.native.unroll.parts.Part."""
        return self._part.keeps_input(needs_input=needs_input)

    def _make_row(self, place: Place) -> Row:
        part, batch, size = self._part, self._batch_size, place.micro_batch_size
        forward = Segment(phase="training", micro_batch_size=size, batch_size=batch)
        x, held = self._input(forward, place)
        out = _elsewhere(held) if place.out else None
        tape: Tape | None = {} if place.taped else None
        y = part.forward(
            forward, x, tape, needs_input=place.needs_input, out=out, waits=place.waits
        )
        counts_y = y.buffer.storage not in held
        if tape is None:
            room = self.x_bytes if place.has_room else 0
            lives = _Lives(forward.ops, held, born=[x], kept=[y])
            records = _records(forward.ops, set())
            return Row(lives.peak, 0, room, 0, 0, records, counts_y, True)
        backward = Segment(phase="training", micro_batch_size=size, batch_size=batch)
        grad = backward.new_map(y.channels, y.size)
        if not place.counts_grad:
            held.add(grad.buffer.storage)
        out = _elsewhere(held) if place.out_backward else None
        grad_x = part.backward(backward, grad, tape, needs_input=place.needs_input, out=out)
        named = set(_storages(backward.ops))
        shared = {storage for storage in _storages(forward.ops) if storage in named} - {
            y.buffer.storage
        }
        whole = {storage for storage in shared if storage.spans_passes}
        kept = sum(aligned(storage.num_bytes) for storage in shared - held)
        gradients = {storage for storage in named - shared - held if storage.spans_passes}
        keeps_x = place.has_room and part.keeps_input(needs_input=place.needs_input)
        room = self.x_bytes if place.has_room else 0
        unread = {s for s in _storages(forward.ops) if s.spans_passes} - held - shared
        held |= whole | gradients | unread
        lives = _Lives(forward.ops, held, born=[x], kept=[y, *shared])
        back = _Lives(backward.ops, held, born=[grad, *shared], kept=[grad_x])
        return Row(
            forward=lives.peak,
            kept=kept + (room if keeps_x else 0),
            room=(0 if keeps_x else room) + sum(aligned(s.num_bytes) for s in unread),
            backward=back.peak,
            gradients=sum(aligned(storage.num_bytes) for storage in gradients),
            records=_records([*forward.ops, *backward.ops], set()),
            counts_y=counts_y,
            counts_grad_x=grad_x is not None and grad_x.buffer.storage not in held,
        )

    def _input(self, segment: Segment, place: Place) -> tuple[Map, set[Storage | None]]:
        """And what is held anyway."""
        held: set[Storage | None] = set()
        if self._loads is not None:
            return self._loads.load(segment, self._size), held
        x = segment.new_map(self._channels, self._size)
        if not place.counts_x:
            held.add(x.buffer.storage)
        return Map(buffer=x.buffer, channels=x.channels, size=x.size, spare=place.spare), held


class NothingStored:
    """Of a part without values of its own."""

    frozen_bytes = records = 0

    def state(self, optimizer_bits: OptimizerBits, trained_bits: TrainedBits) -> tuple[int, int]:
        return 0, 0


class PassedCost:
    """A part whose work the next one does."""

    learns = False
    x_bytes = 0
    stored = NothingStored()

    def row(self, place: Place) -> Row:
        return Row(0, 0, 0, 0, 0, 0, True, True)

    def keeps_input(self, needs_input: bool) -> bool:
        return False


AnyCost = PartCost | PassedCost


class HeadCost:
    """The head and what it takes."""

    def __init__(
        self,
        head: Head,
        drawing: Blueprint,
        values: Values,
        batch_size: int,
        *,
        num_features: int,
    ) -> None:
        self._head = head
        self._batch_size = batch_size
        self._num_features = num_features
        self.stored = Stored(drawing, values)
        self.turn = lru_cache(maxsize=None)(self._turn)

    def _turn(self, micro_batch_size: int, learns: bool, has_dropout: bool) -> Row:
        segment = Segment(
            phase="training", micro_batch_size=micro_batch_size, batch_size=self._batch_size
        )
        features = segment.new_map(self._num_features, 1)
        held: set[Storage | None] = set()
        labels = _elsewhere(held)
        keep = _elsewhere(held) if has_dropout else None
        grad = self._head.turn(segment, features, labels, keep, learns=learns)
        gradients = {s for s in _storages(segment.ops) if s.spans_passes} - held
        lives = _Lives(segment.ops, held | gradients, born=[features], kept=[grad])
        waiting = sum(aligned(storage.num_bytes) for storage in gradients)
        return Row(lives.peak, 0, 0, 0, waiting, _records(segment.ops, set()), True, True)

    def evaluation_bytes(self) -> int:
        """With the features of one image."""
        segment = Segment(phase="evaluation", micro_batch_size=1, batch_size=1)
        features = segment.new_map(self._num_features, 1)
        logits = self._head.logits(segment, features)
        return _Lives(segment.ops, set(), born=[features], kept=[logits]).peak


class PartCosts:
    """The parts of networks that are alike in norm, padding, method and batch, each priced
    once."""

    def __init__(
        self, norm: NormConfig, padding: Padding, method: Method, batch_size: int
    ) -> None:
        self._drawing_of = norm, padding, method
        self._batch_size = batch_size
        self.block = lru_cache(maxsize=1 << 14)(self._block)
        self.beginning = lru_cache(maxsize=256)(self._beginning)
        self.tail = lru_cache(maxsize=256)(self._tail)
        self.head = lru_cache(maxsize=256)(self._head)

    def _draw(self) -> Blueprint:
        return Blueprint(*self._drawing_of)

    def _beginning(
        self, conv: ConvConfig, block: BlockConfig, in_size: int, image_size: int
    ) -> list[AnyCost]:
        """The stem and the first block, of which the second may do the work of both."""
        drawing = self._draw()
        drawn, drawn_block = drawing.stem(conv), drawing.block(block)
        values = drawing.values()
        stem = StemPart(drawn, values, image_size=image_size)
        _, second = joined([stem, BlockPart(drawn_block, "blocks.0", values)])
        if stem.is_joined:
            return [PassedCost(), self._from_images(second, drawing, values, in_size, stem)]
        drawing = self._draw()
        drawn, values = drawing.stem(conv), drawing.values()
        stem = StemPart(drawn, values, image_size=image_size)
        size = conv_size(in_size, conv.kernel_size, conv.stride)
        return [self._from_images(stem, drawing, values, in_size, stem), self.block(block, size)]

    def _from_images(
        self, part: Part, drawing: Blueprint, values: Values, size: int, stem: StemPart
    ) -> PartCost:
        return PartCost(part, drawing, values, self._batch_size, channels=3, size=size, loads=stem)

    def _block(self, block: BlockConfig, in_size: int) -> PartCost:
        drawing = self._draw()
        drawn, values = drawing.block(block), drawing.values()
        part = BlockPart(drawn, "blocks.0", values)
        channels = block.in_channels
        return PartCost(part, drawing, values, self._batch_size, channels=channels, size=in_size)

    def _tail(self, expand: ConvConfig | None, mix: ConvConfig, in_size: int) -> PartCost:
        drawing = self._draw()
        drawn, values = drawing.tail(expand, mix), drawing.values()
        part, channels = TailPart(drawn, values), (expand or mix).in_channels
        return PartCost(part, drawing, values, self._batch_size, channels=channels, size=in_size)

    def _head(self, num_features: int, num_classes: int, dropout_rate: float) -> HeadCost:
        drawing = self._draw()
        drawn, values = drawing.classifier(num_features, num_classes), drawing.values()
        head = Head(drawn, values, dropout_rate=dropout_rate, max_classes=num_classes)
        return HeadCost(head, drawing, values, self._batch_size, num_features=num_features)


class _Lives:
    """The most bytes of a part's own buffers at a time.

    held: counted elsewhere. born: there before the first operation; kept: still there after the
    last.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        held: set[Storage | None],
        *,
        born: Sequence[Map | Storage],
        kept: Sequence[Map | Storage | None],
    ) -> None:
        first: dict[Storage, int] = {}
        last: dict[Storage, int] = {}
        for moment, op in enumerate(ops):
            for storage in _storages([op]):
                first.setdefault(storage, moment)
                last[storage] = moment
        for one in born:
            storage = _storage_of(one)
            first[storage] = 0
            last.setdefault(storage, 0)
        for other in kept:
            if other is not None:
                storage = _storage_of(other)
                first.setdefault(storage, len(ops))
                last[storage] = len(ops)
        changes = [0] * (len(ops) + 2)
        for storage, moment in first.items():
            if storage not in held:
                size = aligned(storage.num_bytes)
                changes[moment] += size
                changes[last[storage] + 1] -= size
        now = self.peak = 0
        for change in changes:
            now += change
            self.peak = max(self.peak, now)


def _storage_of(one: Map | Storage) -> Storage:
    if isinstance(one, Storage):
        return one
    assert one.buffer.storage is not None
    return one.buffer.storage


def _storages(ops: Sequence[Op]) -> Iterator[Storage]:
    for op in ops:
        for buffer in op.operands.values():
            if buffer is not None and buffer.storage not in (None, PERSISTENT):
                yield buffer.storage


def _elsewhere(held: set[Storage | None]) -> Buffer:
    """A place that is there already."""
    storage = Storage(num_bytes=0)
    held.add(storage)
    return Buffer(storage=storage, num_bytes=0)


def _records(ops: Sequence[Op], known: set[object]) -> int:
    """Of operations, and of the buffers that they name in the arena."""
    for op in ops:
        for buffer in op.operands.values():
            if buffer is not None and buffer.storage not in (None, PERSISTENT):
                known.add((buffer.storage, buffer.offset, buffer.num_bytes, buffer.stride))
    return OP.size * len(ops) + BUFFER.size * len(known)
