"""A sampler for Optuna that knows what candidates take, and learns what they are good for.

Memory and multiply-accumulates of a candidate are known before it is scored, its accuracy is not.
So a predictor is fitted to the scored candidates, tens of thousands of others are bred and priced
in an inner loop, and of those within the limits the one is proposed that is expected to add most:
to the memory-accuracy front, or to the best accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.breeding import Breeder, Facts, Pool
from search.encoding import Rows
from search.front import Floats, Staircase, expected_excess
from search.predictor import Features, Predictor

NUM_IMAGES = "num_images"
"""A user attribute of trials: the images that the accuracy was found on, where not all."""

_NUM_FIRST = 12
"""Trials spread over the memory up to the limit, before there is anything to learn from."""

_NUM_GENERATIONS = 6
_NUM_CHILDREN = 3000
_NUM_PARENTS = 300
_NUM_BANDS = 20
"""Bands of memory, each of which has parents."""

_NUM_FINALISTS = 1500

_GROWTH_EVERY = 3
"""One of so many trials goes for the front, the others for the best accuracy."""

_LEAST_DEVIATION = 1e-9

_MAX_POINTS = 800
"""Scored candidates that the predictor is fitted to: its time goes with their cube."""

_FIT_AGAIN = 1.3
"""The predictor's scales are fitted again when there are so many times as many scores."""


class _Scored(NamedTuple):
    """Candidates with their accuracies; noise: the variance of each over that of a whole score."""

    pool: Pool
    accuracies: Floats
    noise: Floats

    def take(self, which: NDArray[Any]) -> _Scored:
        return _Scored(self.pool.take(which), self.accuracies[which], self.noise[which])


class PredictorSampler(BaseSampler):
    """Proposes values of categorical parameters: within the limits, none twice.

    For studies that maximize one accuracy, by ask and tell, in batches or one by one: trials that
    were asked for and not told are taken into account as if they came out as predicted. What it
    proposes depends on the seed and the study's trials alone, so a study that was rebuilt from its
    trials goes on as the first would have.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Any]],
        facts: Callable[[Rows], Facts],
        *,
        limit_bytes: float,
        mac_limit: float = np.inf,
        chance: float = 0.0,
        canonical: Callable[[Rows], Rows] = lambda rows: rows,
        num_images: int | None = None,
        seed: int = 0,
    ) -> None:
        """choices: each parameter's values, rising where they have an order. facts: of rows of
        their indices. canonical: of rows that are the same candidate, the one that stands for
        them. chance: the accuracy of guessing. num_images: those of a whole score.
        """
        self._choices = {name: tuple(values) for name, values in choices.items()}
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in self._choices.items()
        }
        self._breeder = Breeder(
            self._choices, facts, limit_bytes=limit_bytes, mac_limit=mac_limit, canonical=canonical
        )
        counts = self._breeder.counts
        self._columns = np.repeat(np.arange(len(counts)), counts - 1)
        self._steps = np.concatenate([np.arange(1, count) for count in counts])
        self._limit_bytes = limit_bytes
        self._chance = chance
        self._num_images = num_images
        self._seed = seed
        self._bred: tuple[bytes, Predictor, Pool] | None = None
        self._fitted: tuple[bytes, Floats] | None = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise ValueError(
            f"parameter {param_name!r} is none of this sampler's: {sorted(self._choices)}"
        )

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = [other for other in study.get_trials(deepcopy=False) if other.params]
        told = [other for other in others if other.state is TrialState.COMPLETE]
        scored = _Scored(
            self._pool(told),
            np.array([other.values[0] for other in told]),
            np.array([self._noise(other) for other in told]),
        )
        asked = [other for other in others if other.state is TrialState.RUNNING]
        row = self._propose(scored, self._pool(asked))
        return {
            name: values[index]
            for (name, values), index in zip(self._choices.items(), row.tolist(), strict=True)
        }

    def _pool(self, trials: Sequence[FrozenTrial]) -> Pool:
        indices = [
            [values.index(trial.params[name]) for name, values in self._choices.items()]
            for trial in trials
        ]
        rows = np.array(indices, dtype=np.intp).reshape(len(trials), len(self._choices))
        return self._breeder.pool(rows)

    def _noise(self, trial: FrozenTrial) -> float:
        if self._num_images is None:
            return 1.0
        return self._num_images / int(trial.user_attrs.get(NUM_IMAGES, self._num_images))

    def _propose(self, scored: _Scored, pending: Pool) -> NDArray[np.intp]:
        known = scored.pool.beside(pending)
        number = len(known)
        rng = np.random.default_rng([self._seed, number])
        ends = self._breeder.pool(self._breeder.ends).without(known.keys)
        if len(ends):
            first: NDArray[np.intp] = ends.rows[0]
            return first
        if number < _NUM_FIRST or len(scored.pool) < 2:
            return self._spread_out(known, rng)
        predictor, finalists = self._breed(scored)
        finalists = finalists.without(pending.keys)
        if not len(finalists):
            return self._any(known, rng)
        if len(pending):
            predictor, scored = self._believe(predictor, scored, pending)
        means, deviations = predictor.predict(self._features(finalists))
        accuracies = self._counted(scored)
        if number % _GROWTH_EVERY:
            gains = expected_excess(means, deviations, accuracies.max())
        else:
            stairs = self._stairs(scored)
            gains = stairs.expected_growth(finalists.facts.peak_bytes, means, deviations)
        row: NDArray[np.intp] = finalists.rows[np.argmax(gains)]
        return row

    def _breed(self, scored: _Scored) -> tuple[Predictor, Pool]:
        """The predictor, and the best of the inner loop, none of them scored."""
        key = scored.pool.keys.tobytes() + scored.accuracies.tobytes()
        if self._bred is None or self._bred[0] != key:
            predictor = self._fit(scored, self._scales(scored))
            rng = np.random.default_rng([self._seed, len(scored.pool)])
            self._bred = (key, predictor, self._finalists(predictor, scored, rng))
        return self._bred[1:]

    def _finalists(self, predictor: Predictor, scored: _Scored, rng: np.random.Generator) -> Pool:
        breeder, stairs = self._breeder, self._stairs(scored)
        pool = breeder.feasible(np.concatenate([scored.pool.rows, breeder.random(rng)]))
        means = predictor.means(self._features(pool))
        for _ in range(_NUM_GENERATIONS):
            parents = pool.rows[_promising(pool, means, stairs, _NUM_PARENTS)]
            children = breeder.feasible(breeder.children(parents, _NUM_CHILDREN, rng))
            children = children.without(pool.keys)
            pool = pool.beside(children)
            means = np.append(means, predictor.means(self._features(children)))
        is_new = ~np.isin(pool.keys, scored.pool.keys)
        pool, means = pool.take(is_new), means[is_new]
        if not len(pool):
            return pool
        return pool.take(_promising(pool, means, stairs, _NUM_FINALISTS))

    def _believe(
        self, predictor: Predictor, scored: _Scored, pending: Pool
    ) -> tuple[Predictor, _Scored]:
        """As if what is pending had come out as predicted."""
        expected = predictor.means(self._features(pending))
        believed = _Scored(
            scored.pool.beside(pending),
            np.append(scored.accuracies, expected),
            np.append(scored.noise, np.ones(len(expected))),
        )
        return self._fit(believed, predictor.scales), believed

    def _fit(self, scored: _Scored, scales: Floats | None) -> Predictor:
        """To those nearest to the front, where there are very many."""
        if len(scored.pool) > _MAX_POINTS:
            order = np.argsort(scored.pool.facts.peak_bytes, kind="stable")
            heights = np.empty(len(order))
            heights[order] = np.maximum.accumulate(scored.accuracies[order])
            nearest = np.argsort(heights - scored.accuracies, kind="stable")[:_MAX_POINTS]
            scored = scored.take(np.sort(nearest))
        features = self._features(scored.pool)
        return Predictor(features, scored.accuracies, scored.noise, scales)

    def _scales(self, scored: _Scored) -> Floats:
        """Fitted now and then, to the first scores: the same for a study that was rebuilt."""
        count = float(_NUM_FIRST)
        while count * _FIT_AGAIN <= min(len(scored.pool), _MAX_POINTS):
            count *= _FIT_AGAIN
        first = scored.take(np.arange(min(int(count), len(scored.pool))))
        key = first.pool.keys.tobytes() + first.accuracies.tobytes()
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = (key, self._fit(first, None).scales)
        return self._fitted[1]

    def _stairs(self, scored: _Scored) -> Staircase:
        return Staircase(
            scored.pool.facts.peak_bytes,
            self._counted(scored),
            limit_bytes=self._limit_bytes,
            chance=self._chance,
        )

    def _counted(self, scored: _Scored) -> Floats:
        """Accuracies; but chance where a limit is passed: scores may be of another search's."""
        fits = self._breeder.fits(scored.pool.facts)
        return np.where(fits, scored.accuracies, self._chance)

    def _features(self, pool: Pool) -> Features:
        return Features(
            choices=(pool.rows[:, self._columns] >= self._steps).astype(float),
            sizes=np.log(np.stack(pool.facts, axis=1)),
        )

    def _spread_out(self, known: Pool, rng: np.random.Generator) -> NDArray[np.intp]:
        """One whose memory is far from that of all known ones."""
        pool = self._breeder.feasible(self._breeder.random(rng)).without(known.keys)
        if not len(pool):
            return self._any(known, rng)
        distances = np.abs(np.subtract.outer(pool.facts.peak_bytes, known.facts.peak_bytes))
        nearest = distances.min(axis=1)
        row: NDArray[np.intp] = rng.choice(pool.rows[nearest >= 0.9 * nearest.max()])
        return row

    def _any(self, known: Pool, rng: np.random.Generator) -> NDArray[np.intp]:
        """A neighbour of the known ones that is new, or one of them where there is none."""
        new = self._breeder.feasible(self._breeder.neighbours(known.rows)).without(known.keys)
        row: NDArray[np.intp] = rng.choice(new.rows if len(new) else known.rows)
        return row


def _promising(pool: Pool, means: Floats, stairs: Staircase, count: int) -> NDArray[np.intp]:
    """Indices of those that would add most to the front, and of the most accurate in each band of
    memory; by rising memory."""
    peak_bytes = pool.facts.peak_bytes
    deviations = np.full(len(means), max(float(means.std()) / 10, _LEAST_DEVIATION))
    growth = stairs.expected_growth(peak_bytes, means, deviations)
    chosen = [np.argsort(-growth, kind="stable")[: count // 2]]
    order = np.argsort(peak_bytes, kind="stable")
    for band in np.array_split(order, _NUM_BANDS):
        best = np.argsort(-means[band], kind="stable")
        chosen.append(band[best[: count // (2 * _NUM_BANDS)]])
    found = np.unique(np.concatenate(chosen))
    return found[np.argsort(peak_bytes[found], kind="stable")]
