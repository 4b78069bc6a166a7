"""A search problem: a landscape and a memory limit, and what a searcher may ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.landscapes import Floats, Landscape, Rows

Row = NDArray[np.intp]

MAX_REJECTED = 20
"""Proposals in a row that do not fit, or are known, before one is made to fit."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is known without scoring: the candidates, and what each takes.

    limit_share: of the way from the smallest candidate's bytes to the largest one's.
    """

    landscape: Landscape
    limit_share: float

    @cached_property
    def limit_bytes(self) -> int:
        return self.landscape.limit_bytes(self.limit_share)

    def peak_bytes(self, rows: Rows) -> Floats:
        return self.landscape.peak_bytes(rows, self.limit_bytes)

    def fits(self, row: Row) -> bool:
        return bool(self.peak_bytes(row[None])[0] <= self.limit_bytes)

    def random(self, count: int, rng: np.random.Generator) -> Rows:
        """Drawn evenly from each choice, whether they fit or not."""
        sizes = self.landscape.sizes
        return self.landscape.canonical(rng.integers(sizes, size=(count, len(sizes))))

    def feasible(
        self, rows: Rows, rng: np.random.Generator, limit_bytes: float | None = None
    ) -> Rows:
        """The rows, each that does not fit walked to the smallest candidate until it does.

        On the walk, one choice after the other, at random, takes its next smaller value; where
        it first fits is found by bisection. limit_bytes: instead of the device's.
        """
        limit = limit_bytes or self.limit_bytes
        found = self.landscape.canonical(rows)
        too_large = np.flatnonzero(self.peak_bytes(found) > limit)
        if not len(too_large):
            return found
        starts = found[too_large]
        lengths = starts.sum(axis=1)
        # order (M, P, sizes): when on its walk each choice takes each of its steps
        order = rng.random((*starts.shape, int(self.landscape.sizes.max())))
        order[np.arange(order.shape[2]) >= starts[:, :, None]] = np.inf
        times = np.sort(order.reshape(len(starts), -1), axis=1)

        def after(num_steps: NDArray[np.intp]) -> Rows:
            last = times[np.arange(len(starts)), num_steps - 1]
            return self.landscape.canonical(
                starts - ((order <= last[:, None, None]) & (order < np.inf)).sum(axis=2)
            )

        outside, inside = np.zeros_like(lengths), lengths
        while np.any(inside - outside > 1):
            middle = np.maximum((outside + inside) // 2, 1)
            fits = self.peak_bytes(after(middle)) <= limit
            inside = np.where(fits, middle, inside)
            outside = np.where(fits, outside, middle)
        found[too_large] = after(inside)
        return found


class Searcher(Protocol):
    """Asked for one candidate after the other; told the accuracy of each before the next."""

    def ask(self) -> Row:
        """A row (P,), canonical, that fits the limit."""

    def tell(self, row: Row, accuracy: float) -> None:
        """The accuracy of the row last asked for."""
