"""Two objectives at once, accuracy up and memory down: fronts and what they are worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def hypervolume(
    accuracy: Floats, peak_bytes: Floats, *, limit_bytes: float, chance: float
) -> float:
    """Area between the candidates (N,) and the point (limit, chance), exact, in bytes.

    For every number of bytes up to the limit: the best accuracy, above chance, that can be had
    for them; summed up.
    """
    counts = (peak_bytes <= limit_bytes) & (accuracy > chance)
    order = np.argsort(peak_bytes[counts], kind="stable")
    best = np.maximum.accumulate(accuracy[counts][order])
    widths = np.diff(np.append(peak_bytes[counts][order], limit_bytes))
    return float(np.sum(widths * (best - chance)))


def front(accuracy: Floats, peak_bytes: Floats) -> NDArray[np.intp]:
    """Indices of the candidates that no other betters, by rising bytes; of equals the first."""
    order = np.lexsort((-accuracy, peak_bytes))
    before = np.concatenate([[-np.inf], np.maximum.accumulate(accuracy[order])[:-1]])
    return order[accuracy[order] > before]


def survivors(accuracy: Floats, peak_bytes: Floats, count: int) -> NDArray[np.intp]:
    """Indices of count candidates, by NSGA-II's ranks and crowding (Deb et al. 2002).

    Of the front that does not fit whole, those are kept that stand the farthest from others.
    """
    left = np.arange(len(accuracy))
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        members = left[front(accuracy[left], peak_bytes[left])]
        if len(chosen) + len(members) > count:
            gaps = _crowding(accuracy[members], peak_bytes[members])
            members = members[np.argsort(-gaps, kind="stable")][: count - len(chosen)]
        chosen.extend(members.tolist())
        left = np.setdiff1d(left, members)
    return np.array(chosen, dtype=np.intp)


def _crowding(accuracy: Floats, peak_bytes: Floats) -> Floats:
    """Distance between the neighbours of each on a front sorted by bytes; endless at its ends."""
    gaps = np.zeros(len(accuracy))
    gaps[[0, -1]] = np.inf
    for values in (accuracy, peak_bytes):
        span = float(values[-1] - values[0]) or 1.0
        gaps[1:-1] += (values[2:] - values[:-2]) / span
    return gaps
