"""Where each buffer lies in the arena: offsets planned ahead from when it is needed.

Two buffers may share bytes where their times don't overlap. The least arena there can be is the
largest sum of bytes that are needed at one time; the plan comes to that, or close.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

ALIGNMENT = 64

_SMALL = 256
"""Buffers of less than such a part of the arena come last."""
_TRIES, _GOOD_TRIES, _GOOD = 1200, 100, 256
"""Orders that are tried at the most; and until less than such a part is wasted."""
_SHUFFLED, _WORSENED = 0.3, 0.02
"""How often another buffer is moved, too, and how often an order is kept that is no better."""


def aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def placed_bytes(live: Any) -> Any:
    """What plan_arena may come to for so many live bytes: of one, or of an array of them."""
    return live + live // 64 + (1 << 14)


@dataclass(frozen=True, kw_only=True)
class Life:
    """A buffer's bytes, and the first and last moment that it is needed, both included."""

    num_bytes: int
    first: int
    last: int

    @property
    def aligned_bytes(self) -> int:
        return aligned(self.num_bytes)


def live_bytes(lives: Sequence[Life]) -> int:
    """The largest sum of bytes that are needed at one time, each buffer aligned."""
    return max(_sums(lives), default=0)


def _sums(lives: Sequence[Life]) -> list[int]:
    """Of what is needed at each moment."""
    changes = [0] * (max((life.last for life in lives), default=-1) + 2)
    for life in lives:
        changes[life.first] += life.aligned_bytes
        changes[life.last + 1] -= life.aligned_bytes
    return list(accumulate(changes))


def plan_arena(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Offsets of the buffers, and the bytes of the arena that they take; always the same for the
    same buffers.

    Buffers are placed one by one at the lowest offset that is free for all of their time. The
    order is searched for: of the large buffers, one that ends highest is placed earlier, again and
    again, as long as that does no harm. Small ones come last, into the gaps.
    """
    least = live_bytes(lives)
    sizes = [life.aligned_bytes for life in lives]
    large = [n for n, size in enumerate(sizes) if size * _SMALL > least]
    small = sorted(
        (n for n, size in enumerate(sizes) if size * _SMALL <= least),
        key=lambda n: (-sizes[n], lives[n].first),
    )
    order = _search([lives[n] for n in large])
    return _place(lives, _conflicts(lives), [*(large[n] for n in order), *small])


def _search(lives: Sequence[Life]) -> list[int]:
    """An order to place them in."""
    sums, conflicts = _sums(lives), _conflicts(lives)
    least = max(sums, default=0)
    large = least // 20

    def crowd(life: Life) -> int:
        """What is needed at its worst moment."""
        return max(sums[life.first : life.last + 1])

    keys: list[Callable[[Life], tuple[int, ...]]] = [
        lambda life: (-life.aligned_bytes, life.first),
        lambda life: (-life.aligned_bytes * (life.last - life.first + 1), life.first),
        lambda life: (life.first - life.last, -life.aligned_bytes),
        lambda life: (life.first, -life.aligned_bytes),
        lambda life: (-life.last, -life.aligned_bytes),
        lambda life: (-crowd(life), life.first - life.last),
        lambda life: (life.aligned_bytes <= large, -crowd(life), -life.aligned_bytes),
    ]
    numbers = range(len(lives))
    found = []
    for key in keys:
        order = sorted(numbers, key=lambda number: key(lives[number]))
        found.append((order, *_place(lives, conflicts, order)))
    best = now = min(found, key=lambda one: one[2])
    rng = random.Random(0)
    for tried in range(_TRIES):
        excess = best[2] - least
        if not excess or (tried >= _GOOD_TRIES and excess * _GOOD <= least):
            break
        order, offsets, total = list(now[0]), *now[1:]
        ends = [n for n in order if offsets[n] + lives[n].aligned_bytes == total]
        highest = rng.choice(ends)
        place = order.index(highest)
        order.remove(highest)
        order.insert(rng.randrange(place + 1), highest)
        if rng.random() < _SHUFFLED:
            order.insert(rng.randrange(len(order)), order.pop(rng.randrange(len(order))))
        other = (order, *_place(lives, conflicts, order))
        if other[2] <= now[2] or rng.random() < _WORSENED:
            now = other
        best = min(best, other, key=lambda one: one[2])
    return best[0]


def _conflicts(lives: Sequence[Life]) -> list[list[int]]:
    """Of each buffer, those that are needed at the same time as it is."""
    by_start = sorted(range(len(lives)), key=lambda number: lives[number].first)
    found: list[list[int]] = [[] for _ in lives]
    active: list[int] = []
    for number in by_start:
        active = [other for other in active if lives[other].last >= lives[number].first]
        for other in active:
            found[number].append(other)
            found[other].append(number)
        active.append(number)
    return found


def _place(
    lives: Sequence[Life], conflicts: Sequence[Sequence[int]], order: Sequence[int]
) -> tuple[list[int], int]:
    offsets = [-1] * len(lives)
    total = 0
    for number in order:
        taken = sorted(
            (offsets[other], offsets[other] + lives[other].aligned_bytes)
            for other in conflicts[number]
            if offsets[other] >= 0
        )
        size, at = lives[number].aligned_bytes, 0
        for start, end in taken:
            if start - at >= size:
                break
            at = max(at, end)
        offsets[number] = at
        total = max(total, at + size)
    return offsets, total
