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

from search.breeding import Breeder, Pool
from search.front import Floats, Staircase
from search.predictor import Features, Predictor

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
"""In deviations of what is predicted."""

_MAX_POINTS = 800
"""Scored candidates that the predictor is fitted to: its time goes with their cube."""


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
        predictor = self._fit(scored, milestone.scales)
        start = milestone.pool.without(scored.pool.keys).beside(scored.pool)
        start = start.take(self._breeder.fits(start.facts))
        pool, means = self._breed(
            predictor, scored, start, generations=_NUM_GENERATIONS, children=_NUM_CHILDREN
        )
        is_new = ~np.isin(pool.keys, scored.pool.keys)
        pool, means = pool.take(is_new), means[is_new]
        if len(pool):
            pool = pool.take(_promising(pool, means, self._stairs(scored), _NUM_FINALISTS))
        return predictor, pool

    def _milestone(self, scored: Scored) -> _Milestone:
        """The latest, after those before it; of two scores at least."""
        counts = [min(FIRST_MILESTONE, len(scored.pool))]
        while (count := round(counts[-1] * _MILESTONES_GROW)) <= len(scored.pool):
            counts.append(count)
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
        predictor = self._fit(scored, None)
        pool, means = self._breed(
            predictor,
            scored,
            pool,
            generations=_MILESTONE_GENERATIONS,
            children=_MILESTONE_CHILDREN,
        )
        if len(pool):
            pool = pool.take(_promising(pool, means, self._stairs(scored), _NUM_KEPT))
        return _Milestone(scored.key, predictor.scales, pool)

    def _breed(
        self, predictor: Predictor, scored: Scored, pool: Pool, *, generations: int, children: int
    ) -> tuple[Pool, Floats]:
        """The pool with all that was bred from it, and what the predictor says of each."""
        breeder, stairs = self._breeder, self._stairs(scored)
        rng = np.random.default_rng([self._seed, len(scored.pool), 1])
        means = predictor.means(self._features(pool))
        for _ in range(generations if len(pool) else 0):
            parents = pool.rows[_promising(pool, means, stairs, _NUM_PARENTS)]
            born = breeder.feasible(breeder.children(parents, children, rng)).without(pool.keys)
            pool = pool.beside(born)
            means = np.append(means, predictor.means(self._features(born)))
        return pool, means

    def _fit(self, scored: Scored, scales: Floats | None) -> Predictor:
        """To those nearest to the front, where there are very many."""
        if len(scored.pool) > _MAX_POINTS:
            order = np.argsort(scored.pool.facts.peak_bytes, kind="stable")
            heights = np.empty(len(order))
            heights[order] = np.maximum.accumulate(scored.accuracies[order])
            nearest = np.argsort(heights - scored.accuracies, kind="stable")[:_MAX_POINTS]
            scored = scored.take(np.sort(nearest))
        features = self._features(scored.pool)
        return Predictor(features, scored.accuracies, scored.noise, scales)


def _promising(pool: Pool, means: Floats, stairs: Staircase, count: int) -> NDArray[np.intp]:
    """Indices of those that would add most to the front, were they somewhat better, and of the
    most accurate in each band of memory; by rising memory."""
    peak_bytes = pool.facts.peak_bytes
    growth = stairs.growth(peak_bytes, means + _BETTER * means.std())
    chosen = [np.argsort(-growth, kind="stable")[: count // 2]]
    order = np.argsort(peak_bytes, kind="stable")
    for band in np.array_split(order, _NUM_BANDS):
        best = np.argsort(-means[band], kind="stable")
        chosen.append(band[best[: count // (2 * _NUM_BANDS)]])
    found = np.unique(np.concatenate(chosen))
    return found[np.argsort(peak_bytes[found], kind="stable")]
