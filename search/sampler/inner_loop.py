"""The search's inner loop: which candidates a predictor expects most of, among all that fit.

Candidates are bred from generation to generation. So that few generations do for each batch of
trials, they start from what was bred before: a *milestone* is reached whenever there are so many
times as many scores, and leaves a pool that was bred with all care from that of the milestone
before. All of it follows from the scores and the seed alone: it is the same for a study that was
rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.sampler.breeding import Breeder, Pool
from search.sampler.front import Floats, Staircase
from search.sampler.predictor import Features, Predictor

FIRST_MILESTONE = 12
_MILESTONES_GROW = 1.3

_NUM_RANDOM = 4000
_MILESTONE_GENERATIONS = 4
_MILESTONE_CHILDREN = 3000
_NUM_KEPT = 2000
"""Candidates of a milestone's pool that the next generations start from."""

_NUM_GENERATIONS = 2
_NUM_CHILDREN = 800
_NUM_PARENTS = 300
_NUM_BANDS = 20
"""Bands of memory, each of which has parents."""

_NUM_FINALISTS = 500

_BETTER = 0.1
"""In deviations of what is hoped for."""

_OPTIMISM = 0.5
"""Candidates are bred for what may be hoped of them, as most are unlike all that is scored: bred
for the expected, they would soon be those alone that the predictor is sure of."""

_MAX_POINTS = 800
"""Scored candidates that the predictor is fitted to: its time goes with their cube."""

_MAX_FOR_SCALES = 300
"""Of these, those that its scales are fitted to, which takes many times as long."""

_MAX_CHAINED = 300
"""A milestone of more scores starts from these alone, so that a study that was rebuilt need not
catch up with all milestones before it."""


class Scored(NamedTuple):
    """Candidates with their accuracies; noise: the variance of each over that of a whole score."""

    pool: Pool
    accuracies: Floats
    noise: Floats

    def take(self, which: NDArray[Any]) -> Scored:
        return Scored(self.pool.take(which), self.accuracies[which], self.noise[which])

    @property
    def key(self) -> bytes:
        return self.pool.keys.tobytes() + self.accuracies.tobytes() + self.noise.tobytes()


@dataclass(frozen=True)
class _Milestone:
    """key: of the first scores, which it follows from."""

    key: bytes
    scales: Floats
    pool: Pool


class InnerLoop:
    """features: of a pool, for the predictor. stairs: the front of what is scored."""

    def __init__(
        self,
        breeder: Breeder,
        features: Callable[[Pool], Features],
        stairs: Callable[[Scored], Staircase],
        seed: int,
    ) -> None:
        self._breeder = breeder
        self._features = features
        self._stairs = stairs
        self._seed = seed
        self._milestones: list[_Milestone] = []

    def finalists(self, scored: Scored) -> tuple[Predictor, Pool]:
        """The predictor, and the most promising candidates that are not scored."""
        milestone = self._milestone(scored)
        predictor = self._fit(_nearest_to_front(scored), milestone.scales)
        start = milestone.pool.without(scored.pool.keys).beside(scored.pool)
        start = start.take(self._breeder.fits(start.facts))
        pool, hopes = self._breed(
            predictor, scored, start, generations=_NUM_GENERATIONS, children=_NUM_CHILDREN
        )
        is_new = ~np.isin(pool.keys, scored.pool.keys)
        pool, hopes = pool.take(is_new), hopes[is_new]
        if len(pool):
            pool = pool.take(_promising(pool, hopes, self._stairs(scored), _NUM_FINALISTS))
        return predictor, pool

    def _milestone(self, scored: Scored) -> _Milestone:
        """The latest, and those before it that it follows from; of two scores at least."""
        counts = [min(FIRST_MILESTONE, len(scored.pool))]
        while (count := round(counts[-1] * _MILESTONES_GROW)) <= len(scored.pool):
            counts.append(count)
        if counts[-1] > _MAX_CHAINED:
            counts = counts[-1:]
        firsts = [scored.take(np.arange(count)) for count in counts]
        del self._milestones[len(counts) :]
        while (
            self._milestones and self._milestones[-1].key != firsts[len(self._milestones) - 1].key
        ):
            del self._milestones[-1]
        for first in firsts[len(self._milestones) :]:
            self._milestones.append(self._reach(first))
        return self._milestones[-1]

    def _reach(self, scored: Scored) -> _Milestone:
        breeder = self._breeder
        rng = np.random.default_rng([self._seed, len(scored.pool), 0])
        pool = breeder.feasible(breeder.random(_NUM_RANDOM, rng))
        if self._milestones:
            before = self._milestones[-1].pool
            pool = before.beside(pool.without(before.keys))
        pool = scored.pool.beside(pool.without(scored.pool.keys))
        pool = pool.take(breeder.fits(pool.facts))
        nearest = _nearest_to_front(scored)
        some = np.linspace(0, len(nearest.pool) - 1, min(len(nearest.pool), _MAX_FOR_SCALES))
        scales = self._fit(nearest.take(some.round().astype(np.intp)), None).scales
        predictor = self._fit(nearest, scales)
        pool, hopes = self._breed(
            predictor,
            scored,
            pool,
            generations=_MILESTONE_GENERATIONS,
            children=_MILESTONE_CHILDREN,
        )
        if len(pool):
            pool = pool.take(_promising(pool, hopes, self._stairs(scored), _NUM_KEPT))
        return _Milestone(scored.key, predictor.scales, pool)

    def _breed(
        self, predictor: Predictor, scored: Scored, pool: Pool, *, generations: int, children: int
    ) -> tuple[Pool, Floats]:
        """The pool with all that was bred from it, and what the predictor hopes of each."""
        breeder, stairs = self._breeder, self._stairs(scored)
        rng = np.random.default_rng([self._seed, len(scored.pool), 1])
        hopes = predictor.hopes(self._features(pool), _OPTIMISM)
        for _ in range(generations if len(pool) else 0):
            parents = pool.rows[_promising(pool, hopes, stairs, _NUM_PARENTS)]
            born = breeder.feasible(breeder.children(parents, children, rng)).without(pool.keys)
            pool = pool.beside(born)
            hopes = np.append(hopes, predictor.hopes(self._features(born), _OPTIMISM))
        return pool, hopes

    def _fit(self, scored: Scored, scales: Floats | None) -> Predictor:
        return Predictor(self._features(scored.pool), scored.accuracies, scored.noise, scales)


def _nearest_to_front(scored: Scored) -> Scored:
    """As many as a predictor is fitted to."""
    order = np.argsort(scored.pool.facts.peak_bytes, kind="stable")
    heights = np.empty(len(order))
    heights[order] = np.maximum.accumulate(scored.accuracies[order])
    nearest = np.argsort(heights - scored.accuracies, kind="stable")[:_MAX_POINTS]
    return scored.take(np.sort(nearest))


def _promising(pool: Pool, hopes: Floats, stairs: Staircase, count: int) -> NDArray[np.intp]:
    """Indices of those that would add most to the front, were they somewhat better, and of the
    most hopeful in each band of memory; by rising memory."""
    peak_bytes = pool.facts.peak_bytes
    growth = stairs.growth(peak_bytes, hopes + _BETTER * hopes.std())
    chosen = [np.argsort(-growth, kind="stable")[: count // 2]]
    order = np.argsort(peak_bytes, kind="stable")
    for band in np.array_split(order, _NUM_BANDS):
        best = np.argsort(-hopes[band], kind="stable")
        chosen.append(band[best[: count // (2 * _NUM_BANDS)]])
    found = np.unique(np.concatenate(chosen))
    return found[np.argsort(peak_bytes[found], kind="stable")]
