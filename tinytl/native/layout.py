"""From the buffers of a program to their places in the arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinytl.native.arena import ALIGNMENT, Life, plan_arena
from tinytl.native.unroll.emitter import Segment
from tinytl.native.unroll.memory import Buffer, Storage
from tinytl.native.unroll.parameters import PERSISTENT
from tinytl.native.unroll.step import Ports


@dataclass(frozen=True, kw_only=True)
class Layout:
    """offsets: of storages, from the arena's start. live_bytes is what no plan can do without."""

    offsets: Mapping[Storage, int]
    arena_bytes: int


class _Lives:
    """When each storage is needed: moments are numbered through all operations."""

    def __init__(self) -> None:
        self._first: dict[Storage, int] = {}
        self._last: dict[Storage, int] = {}

    def use(self, buffer: Buffer | None, first: int, last: int) -> None:
        storage = None if buffer is None else buffer.storage
        if storage is None or storage is PERSISTENT:
            return
        self._first[storage] = min(first, self._first.get(storage, first))
        self._last[storage] = max(last, self._last.get(storage, last))

    def __contains__(self, storage: Storage) -> bool:
        return storage in self._first

    def as_mapping(self) -> dict[Storage, Life]:
        return {
            storage: Life(num_bytes=storage.num_bytes, first=first, last=self._last[storage])
            for storage, first in self._first.items()
        }


def lay_out(
    segments: Sequence[Segment],
    ports: Ports,
    state_bytes: int,
) -> Layout:
    """Places for everything that the operations name."""
    lives = _Lives()
    homes = _segments_by_storage(segments)
    start = 1
    loaded: dict[str, int] = {}
    for segment in segments:
        if segment.phase not in loaded:
            loaded[segment.phase] = start - 1  # a moment for loading
        stop = start + len(segment.ops)
        for moment, op in enumerate(segment.ops, start):
            for buffer in op.operands.values():
                if buffer is None:
                    continue
                spans = not segment.is_single and _outlasts_pass(buffer, homes)
                lives.use(buffer, *((start, stop - 1) if spans else (moment, moment)))
        start = stop + 1
    training, evaluation = loaded["training"], loaded["evaluation"]
    for buffer in (ports.train_labels, ports.train_keep):
        lives.use(buffer, training, training)
    for buffer in (ports.evaluate_images, ports.evaluate_scratch):
        lives.use(buffer, evaluation, evaluation)
    lives.use(ports.evaluate_logits, start, start)
    found = lives.as_mapping()
    offsets, total = plan_arena(list(found.values()))
    base = -(-state_bytes // ALIGNMENT) * ALIGNMENT
    return Layout(
        offsets={storage: base + at for storage, at in zip(found, offsets, strict=True)},
        arena_bytes=base + total,
    )


def _segments_by_storage(segments: Sequence[Segment]) -> dict[Storage, set[int]]:
    homes: dict[Storage, set[int]] = {}
    for number, segment in enumerate(segments):
        for buffer in segment.buffers():
            if buffer.storage is not None:
                homes.setdefault(buffer.storage, set()).add(number)
    return homes


def _outlasts_pass(buffer: Buffer, homes: Mapping[Storage, set[int]]) -> bool:
    """Whether something is in there when the next micro-batch begins."""
    storage = buffer.storage
    if storage is None:
        return False
    return storage.spans_passes or buffer.stride > 0 or len(homes[storage]) > 1
