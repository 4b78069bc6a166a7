"""Images of a split as networks see them, kept in memory as every trial asks for the same ones;
and what networks make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tinytl.engine.network import Network
from tinytl.errors import CancelledError
from tinytl.training.data import ImageSplit

MAX_BYTES = 128 << 20
"""What is kept of a split; batches beyond that are read and resized anew."""

_FEATURES_BATCH = 32

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


def spread_evenly(count: int, num_images: int) -> list[int]:
    """count indices of num_images, with each class's share, as images lie in the order of their
    classes."""
    return [number * num_images // count for number in range(count)]


def features_of(
    network: Network,
    parts: Iterable[tuple[ImageSplit, Sequence[int]]],
    resolution: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, Tensor]:
    """Pooled features (N, F) of whole images, of these indices of each split, and their labels
    (N,), on the CPU. Raises CancelledError."""
    features, labels = [], []
    for split, indices in parts:
        for start in range(0, len(indices), _FEATURES_BATCH):
            if should_stop():
                raise CancelledError("the look at features was cancelled")
            batch = indices[start : start + _FEATURES_BATCH]
            images = evaluation_batch(split, batch, resolution).to(network.device)
            features.append(network.features(images).cpu())
            labels.append(split.labels_of(batch))
    return torch.cat(features), torch.cat(labels)
