"""Where each part of a network is in a plan's segments, as tinytl.native.unroll.step has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tinytl.description.plan import Plan
from tinytl.native.pricing.rows import AnyCost, Place, Row


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of the plan, its parts numbered from start to before stop; see the unroller's.

    x_bytes: of the whole batch's map where it begins, 0 for images.
    """

    start: int
    stop: int
    micro_batch_size: int
    is_single: bool
    is_last: bool
    recomputes: bool
    learns_from: int
    needs_input: bool
    x_bytes: int

    @property
    def learns(self) -> bool:
        return self.learns_from < self.stop - self.start

    @property
    def is_taped(self) -> bool:
        """Whether what backward needs is kept since forward's segment."""
        return self.learns and not self.recomputes and not self.is_last

    @property
    def input_lives(self) -> bool:
        """Whether the place of its input is asked for by backward's segment."""
        return self.learns and (self.recomputes or self.needs_input)

    @property
    def passes_again(self) -> bool:
        """Whether backward's segment runs forward, too."""
        return self.is_last or (self.learns and self.recomputes)


def stretches_of(parts: Sequence[AnyCost], stages: Sequence[int], plan: Plan) -> list[Stretch]:
    """Raises ConfigError for a plan with a stretch beyond the stages."""
    starts = plan.part_starts(stages)
    first = next((number for number, part in enumerate(parts) if part.learns), len(parts))
    return [
        Stretch(
            start=start,
            stop=stop,
            micro_batch_size=stretch.micro_batch_size,
            is_single=stretch.micro_batch_size == plan.batch_size,
            is_last=stop == len(parts),
            recomputes=stretch.recomputes,
            learns_from=min(max(first - start, 0), stop - start),
            needs_input=first < start,
            x_bytes=parts[start].x_bytes if start else 0,
        )
        for stretch, start, stop in zip(plan.stretches, starts, starts[1:], strict=False)
    ]


class Places:
    """The places of a stretch's parts in one of its segments.

    parts: of the stretch; of networks that differ in their blocks, typical ones. passes: whether
    the segment is that of backward, forward run before it where the stretch passes again; else it
    is forward's, with backward's where that has no forward of its own.
    """

    def __init__(self, stretch: Stretch, parts: Sequence[AnyCost], *, passes: bool) -> None:
        self._stretch = stretch
        self._parts = parts
        self._passes = passes
        self._waits = stretch.is_taped and not passes

    @cached_property
    def _all(self) -> list[Place]:
        found: list[Place] = []
        counts_x = self._counts_boundary
        for position, part in enumerate(self._parts):
            place = self._forward(position, part, counts_x)
            found.append(place)
            counts_x = part.row(place).counts_y
        counts_grad = self._stretch.is_last
        for position in reversed(range(len(found))):
            place = found[position]
            if place.taped:
                found[position] = place = place._replace(
                    counts_grad=counts_grad,
                    out_backward=self._has_room_for_gradient and position == 0,
                )
                counts_grad = self._parts[position].row(place).counts_grad_x
        return found

    def row(self, position: int, part: AnyCost) -> Row:
        """Of a part at this position."""
        place = self._all[position]
        if position == 0:
            place = place._replace(spare=self._may_overwrite_input(part))
        return part.row(place)

    def first_row(self, position: int, part: AnyCost) -> Row:
        """Of a part at this position where those before it are not there."""
        place = self._forward(0, part, self._counts_boundary)
        place = place._replace(out=self._all[position].out)
        if place.taped:
            place = place._replace(
                counts_grad=self._all[position].counts_grad,
                out_backward=self._has_room_for_gradient,
            )
        return part.row(place)

    @property
    def _counts_boundary(self) -> bool:
        return self._stretch.is_single and self._stretch.is_last

    @property
    def _has_room_for_gradient(self) -> bool:
        stretch = self._stretch
        return stretch.start > 0 and stretch.needs_input and not stretch.is_single

    def _forward(self, position: int, part: AnyCost, counts_x: bool) -> Place:
        stretch, is_single = self._stretch, self._stretch.is_single
        is_last = position == len(self._parts) - 1
        hands_on = not self._passes and is_last
        is_kept = not is_last and self._is_kept(position + 1)
        own_is_kept = position > 0 and self._is_kept(position)
        return Place(
            micro_batch_size=stretch.micro_batch_size,
            taped=(self._passes or self._waits) and position >= stretch.learns_from,
            waits=self._waits,
            needs_input=stretch.needs_input or position > stretch.learns_from,
            counts_x=counts_x,
            spare=self._may_overwrite_input(part) if position == 0 else not own_is_kept,
            has_room=own_is_kept and not is_single,
            out=not is_single and (hands_on or is_kept),
        )

    def _is_kept(self, position: int) -> bool:
        """Whether the part at the position keeps its input for another segment."""
        starts = position >= self._stretch.learns_from
        return self._waits and starts and self._parts[position].keeps_input(True)

    def _may_overwrite_input(self, part: AnyCost) -> bool:
        stretch = self._stretch
        if self._passes or not stretch.learns:
            return True
        keeps = stretch.learns_from == 0 and part.keeps_input(stretch.needs_input)
        return not (stretch.recomputes or keeps)
