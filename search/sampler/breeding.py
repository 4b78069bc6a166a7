"""Feasible candidates by the thousand: random ones, children of others, the ends of the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.sampler.front import Floats
from search.space.encoding import Rows

_NUM_CLIMBERS = 100
_NUM_BORN = 2000
_NUM_GENERATIONS = 8
"""The ends of the front are looked for among so many candidates a generation."""

_NEARBY = 20
"""A parent's mate is at most so many places from it in the order of their memory."""

_NUM_MUTATIONS = 2.0
"""Choices of a child that are drawn anew, on average."""

_FAR = 1e18


class Facts(NamedTuple):
    """What is known of N candidates without scoring them: (N,) each."""

    peak_bytes: Floats
    macs: Floats


@dataclass(frozen=True)
class Pool:
    """N candidates: rows (N, P) in canonical form, what is known of them, what names them (N,)."""

    rows: Rows
    facts: Facts
    keys: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[Any]) -> Pool:
        """Those at indices, or where a mask is true."""
        facts = Facts(*(column[which] for column in self.facts))
        return Pool(self.rows[which], facts, self.keys[which])

    def without(self, keys: NDArray[np.int64]) -> Pool:
        return self.take(~np.isin(self.keys, keys))

    def beside(self, other: Pool) -> Pool:
        """Both; they share no candidate."""
        facts = Facts(*map(np.concatenate, zip(self.facts, other.facts, strict=True)))
        rows = np.concatenate([self.rows, other.rows])
        return Pool(rows, facts, np.concatenate([self.keys, other.keys]))


class Breeder:
    """Makes candidates of a space within limits of memory and multiply-accumulates."""

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        facts: Callable[[Rows], Facts],
        *,
        limit_bytes: float,
        mac_limit: float,
        canonical: Callable[[Rows], Rows],
    ) -> None:
        """As PredictorSampler has them."""
        self.counts = np.array([len(values) for values in choices.values()])
        self._facts = facts
        self._limits = (limit_bytes, mac_limit)
        self._canonical = canonical
        factors = np.random.default_rng(0).integers(2**62, size=len(self.counts)) | 1
        self._factors = factors.astype(np.int64)

    def pool(self, rows: Rows) -> Pool:
        rows = self._canonical(rows)
        return Pool(rows, self._facts(rows), self._keys(rows))

    def feasible(self, rows: Rows) -> Pool:
        """Those within the limits, each once."""
        rows = self._canonical(rows)
        keys, first = np.unique(self._keys(rows), return_index=True)
        rows = rows[first]
        pool = Pool(rows, self._facts(rows), keys)
        return pool.take(self.fits(pool.facts))

    def fits(self, facts: Facts) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self._excess(facts) <= 0
        return found

    def random(self, count: int, rng: np.random.Generator) -> Rows:
        """Rows from the smallest choices to the largest, each with more or less of chance."""
        shape = (count, len(self.counts))
        level, freedom = rng.random((count, 1)), rng.random((count, 1))
        at = level + freedom * (rng.random(shape) - level)
        rows: Rows = np.floor(at * self.counts).astype(np.intp)
        return rows

    def children(self, parents: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Half of them take after two parents near to each other in memory; choices mutate.

        parents: by rising memory.
        """
        ones = rng.integers(len(parents), size=count)
        others = ones + rng.integers(-_NEARBY, _NEARBY + 1, size=count)
        others = np.clip(others, 0, len(parents) - 1)
        shape = (count, len(self.counts))
        share = rng.random((count, 1)) * (rng.random((count, 1)) < 0.5)
        rows = np.where(rng.random(shape) < share, parents[others], parents[ones])
        mutates = rng.random(shape) < _NUM_MUTATIONS / len(self.counts)
        return np.where(mutates, rng.integers(self.counts, size=shape), rows)

    def neighbours(self, rows: Rows) -> Rows:
        """The rows, and all that differ from one of them in one choice."""
        found = [rows]
        for column, count in enumerate(self.counts):
            for index in range(count):
                others = rows[rows[:, column] != index]
                others[:, column] = index
                found.append(others)
        return np.concatenate(found)

    @cached_property
    def ends(self) -> Rows:
        """The feasible candidate of least memory, and one of most multiply-accumulates (2, P).

        Of least memory where none is feasible.
        """
        lean = self._climb(lambda facts: -facts.peak_bytes)
        large = self._climb(lambda facts: facts.macs)
        return np.stack([lean, large])

    def _climb(self, value: Callable[[Facts], Floats]) -> NDArray[np.intp]:
        """The best of some generations, bettered choice by choice."""
        rng = np.random.default_rng(0)

        def fittest(pool: Pool) -> Pool:
            heights = value(pool.facts) - _FAR * self._excess(pool.facts)
            best = np.argsort(-heights, kind="stable")[:_NUM_CLIMBERS]
            return pool.take(best)

        pool = fittest(self.pool(self.random(_NUM_BORN, rng)))
        for _ in range(_NUM_GENERATIONS):
            parents = pool.rows[np.argsort(pool.facts.peak_bytes, kind="stable")]
            pool = fittest(pool.beside(self.pool(self.children(parents, _NUM_BORN, rng))))
        while True:
            best: NDArray[np.intp] = pool.rows[0]
            pool = fittest(self.pool(self.neighbours(best[None])))
            if (pool.rows[0] == best).all():
                return best

    def _excess(self, facts: Facts) -> Floats:
        """By what share each is above the limits, added up."""
        over = [
            np.maximum(known / limit - 1, 0)
            for known, limit in zip(facts, self._limits, strict=True)
        ]
        found: Floats = over[0] + over[1]
        return found

    def _keys(self, rows: Rows) -> NDArray[np.int64]:
        """Numbers that name canonical rows: two that differ have the same by a chance of 2^-62."""
        with np.errstate(over="ignore"):
            found: NDArray[np.int64] = rows.astype(np.int64) @ self._factors
        return found
