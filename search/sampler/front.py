"""The memory-accuracy front: what accuracy can be had from how many bytes on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]


def front_of(peak_bytes: ArrayLike, merits: ArrayLike) -> NDArray[np.intp]:
    """Indices of the points that no other beats, by rising bytes: each has more merit, such as
    accuracy, than all that take less. Of equal ones the first.
    """
    peaks, values = np.asarray(peak_bytes, dtype=float), np.asarray(merits, dtype=float)
    order = np.lexsort((np.arange(len(peaks)), -values, peaks))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values[order][:-1]]))
    return order[values[order] > best]


class Staircase:
    """The front as a step function: the best accuracy of at most so many bytes, up to a limit.

    Below the first point, it is chance: what guessing gives.
    """

    def __init__(
        self, peak_bytes: ArrayLike, accuracies: ArrayLike, *, limit_bytes: float, chance: float
    ) -> None:
        peaks, values = np.asarray(peak_bytes, dtype=float), np.asarray(accuracies, dtype=float)
        within = (peaks <= limit_bytes) & (values > chance)
        peaks, values = peaks[within], values[within]
        on_front = front_of(peaks, values)
        self._starts = np.concatenate([[-np.inf], peaks[on_front]])
        self._ends = np.concatenate([peaks[on_front], [limit_bytes]])
        self._heights = np.concatenate([[chance], values[on_front]])

    def hypervolume(self) -> float:
        """The area between front and chance, up to the limit, in bytes: accuracy times bytes."""
        widths = self._ends[1:] - self._starts[1:]
        return float(np.sum(widths * (self._heights[1:] - self._heights[0])))

    def growth(self, peak_bytes: Floats, accuracies: Floats) -> Floats:
        """By how much each of N points on its own would add to the hypervolume (N,)."""
        excess = np.maximum(accuracies[:, None] - self._heights, 0)
        found: Floats = np.sum(self._widths(peak_bytes) * excess, axis=1)
        return found

    def expected_growth(self, peak_bytes: Floats, means: Floats, deviations: Floats) -> Floats:
        """By how much each of N points is expected to add to the hypervolume, where its bytes are
        known and its accuracy is normally distributed (N,).

        The expected hypervolume improvement (Emmerich 2005), which needs one integral less here:
        over each step the point adds its width to the right of the point, times the expected
        improvement on the step's height.
        """
        excess = expected_excess(means[:, None], deviations[:, None], self._heights)
        found: Floats = np.sum(self._widths(peak_bytes) * excess, axis=1)
        return found

    def _widths(self, peak_bytes: Floats) -> Floats:
        """Of the part of each step that is right of each of N points (N, steps)."""
        found: Floats = np.maximum(self._ends - np.maximum(self._starts, peak_bytes[:, None]), 0)
        return found


def expected_excess(means: Floats, deviations: Floats, heights: Floats | float) -> Floats:
    """E[max(0, a - height)] for a normally distributed a: the expected improvement."""
    z = (means - heights) / deviations
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    found: Floats = deviations * (z * ndtr(z) + density)
    return found
