"""The worst moment of a whole step, segment by segment, as tinytl.native.unroll.step has them.

Written once for one network, with amounts of bytes as whole numbers, and for many at once, with
arrays of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinytl.native.pricing.places import Stretch

Amount = Any
"""Bytes: a number, or an array with one for each of many networks."""


class Ways(NamedTuple):
    """What a stretch takes in its two segments, beside what else there is.

    forward, backward: the most bytes at a time; the last stretch has a backward only. kept: from
    forward's segment to backward's; room: for as long as forward's. gradients: for as long as
    backward's.
    """

    forward: Amount
    backward: Amount
    kept: Amount
    room: Amount
    gradients: Amount


def peak(
    stretches: Sequence[Stretch],
    ways: Sequence[Ways],
    ports_bytes: int,
    note: Callable[[Amount], None],
) -> None:
    """Hands the bytes of each segment's worst moment to note.

    A map of the whole batch between stretches has its place until the last segment that asks for
    it; its gradient takes the same place. ports_bytes: of labels and dropout's choices.
    """
    *early, last = range(len(stretches))
    waiting: Amount = 0  # maps and tapes for backward
    for number in early:
        stretch, way = stretches[number], ways[number]
        passing = stretch.x_bytes + stretches[number + 1].x_bytes
        held = 0 if stretch.is_single else way.kept + way.room
        note(ports_bytes + waiting + passing + held + way.forward)
        waiting = waiting + _waiting(stretch, way)
    stretch, way = stretches[last], ways[last]
    held = 0 if stretch.is_single else stretch.x_bytes + way.gradients
    note(ports_bytes + waiting + held + way.backward)
    for number in reversed(early):
        if not (stretches[number + 1].needs_input and stretches[number].learns):
            break
        stretch, way = stretches[number], ways[number]
        waiting = waiting - _waiting(stretch, way)
        held = 0 if stretch.is_single else (way.kept if stretch.is_taped else 0) + way.gradients
        own = stretch.x_bytes * stretch.input_lives
        note(waiting + own + stretches[number + 1].x_bytes + held + way.backward)


def _waiting(stretch: Stretch, way: Ways) -> Amount:
    """From a stretch's forward to its backward."""
    kept = way.kept if stretch.is_taped else 0
    return kept + stretch.x_bytes * stretch.input_lives
