"""Images of a split as networks see them, kept in memory: every trial asks for the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from torch import Tensor

from tinytl.data import ImageSplit

MAX_BYTES = 128 << 20
"""What is kept of a split; batches beyond that are read and resized anew."""

_Batches = dict[tuple[int, tuple[int, ...]], Tensor]
_KEPT: WeakKeyDictionary[ImageSplit, _Batches] = WeakKeyDictionary()


def evaluation_batch(split: ImageSplit, indices: Sequence[int], resolution: int) -> Tensor:
    """split.batch: uint8 (N, 3, resolution, resolution), to be read only.

    It is kept as long as the split. What came first stays, as a trial begins with the same
    batches as those before it.
    """
    kept = _KEPT.setdefault(split, {})
    key = (resolution, tuple(indices))
    if key in kept:
        return kept[key]
    batch = split.batch(indices, resolution)
    if batch.nbytes + sum(other.nbytes for other in kept.values()) <= MAX_BYTES:
        kept[key] = batch
    return batch
