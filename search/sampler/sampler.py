"""A sampler for Optuna that knows what candidates take, and learns what they are good for.

Memory and multiply-accumulates of a candidate are known before it is scored, its accuracy is not.
So a predictor is fitted to the scored candidates, tens of thousands of others are bred and priced
in an inner loop, and of those within the limits the one is proposed that is expected to add most:
to the memory-accuracy front, or to the best accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.sampler.breeding import Breeder, Facts, Pool
from search.sampler.front import Floats, Staircase, expected_excess
from search.sampler.inner_loop import FIRST_MILESTONE, InnerLoop, Scored
from search.sampler.kernel import Columns
from search.sampler.predictor import Features, Posterior, Predictor
from search.space.encoding import Rows

NUM_IMAGES = "num_images"
"""A user attribute of trials: the images that the accuracy was found on, where not all."""

_NUM_SPREAD = 4000

_GROWTH_EVERY = 2
"""One of so many trials goes for the front, the others for the best accuracy."""


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
        distributions: Mapping[str, BaseDistribution] | None = None,
        seed: int = 0,
    ) -> None:
        """choices: each parameter's values, rising where they have an order. facts: of rows of
        their indices. canonical: of rows that are the same candidate, the one that stands for
        them. chance: the accuracy of guessing. num_images: those of a whole score. distributions:
        those of the choices that trials are asked with, where not plain ones.
        """
        self._choices = {name: tuple(values) for name, values in choices.items()}
        self._distributions: dict[str, BaseDistribution] = dict(
            distributions
            or {name: CategoricalDistribution(values) for name, values in self._choices.items()}
        )
        self._breeder = Breeder(
            self._choices, facts, limit_bytes=limit_bytes, mac_limit=mac_limit, canonical=canonical
        )
        counts = self._breeder.counts
        self._parameters = np.repeat(np.arange(len(counts)), counts - 1)
        families, places = _families(tuple(self._choices))
        self._columns = Columns(
            families=families[self._parameters],
            places=places[self._parameters],
            steps=np.concatenate([np.arange(1, count) for count in counts]),
        )
        self._limit_bytes = limit_bytes
        self._chance = chance
        self._num_images = num_images
        self._seed = seed
        self._seen = self._breeder.pool(np.empty((0, len(counts)), dtype=np.intp))
        self._places: dict[int, int] = {}
        self._loop = InnerLoop(self._breeder, self._features, self._stairs, seed)
        self._believed: tuple[bytes, Predictor, Pool, Posterior] | None = None

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
        scored = Scored(
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

    def neighbours(self, rows: Rows, *, known: Rows) -> Rows:
        """All within the limits that differ from one of the rows in one choice, but known ones."""
        found = self._breeder.feasible(self._breeder.neighbours(rows))
        return found.without(self._breeder.pool(known).keys).rows

    def _pool(self, trials: Sequence[FrozenTrial]) -> Pool:
        """Each trial is looked into and priced once."""
        new = [trial for trial in trials if trial.number not in self._places]
        if new:
            indices = [
                [values.index(trial.params[name]) for name, values in self._choices.items()]
                for trial in new
            ]
            self._places.update({t.number: len(self._seen) + i for i, t in enumerate(new)})
            self._seen = self._seen.beside(self._breeder.pool(np.array(indices, dtype=np.intp)))
        places = [self._places[trial.number] for trial in trials]
        return self._seen.take(np.array(places, dtype=np.intp))

    def _noise(self, trial: FrozenTrial) -> float:
        if self._num_images is None:
            return 1.0
        return self._num_images / int(trial.user_attrs.get(NUM_IMAGES, self._num_images))

    def _propose(self, scored: Scored, pending: Pool) -> NDArray[np.intp]:
        known = scored.pool.beside(pending)
        number = len(known)
        rng = np.random.default_rng([self._seed, number])
        ends = self._breeder.pool(self._breeder.ends).without(known.keys)
        if len(ends):
            first: NDArray[np.intp] = ends.rows[0]
            return first
        if number < FIRST_MILESTONE or len(scored.pool) < 2:
            return self._spread_out(known, rng)
        predictor, finalists, beliefs = self._beliefs(scored)
        is_new = ~np.isin(finalists.keys, pending.keys)
        if not is_new.any():
            return self._any(known, rng)
        # Pending trials count as if they had come out as expected, which changes no expectation.
        features = self._features(pending)
        deviations = beliefs.deviations(features)[is_new]
        finalists, means = finalists.take(is_new), beliefs.means[is_new]
        believed = Scored(
            known,
            np.append(scored.accuracies, predictor.means(features)),
            np.append(scored.noise, np.ones(len(pending))),
        )
        if number % _GROWTH_EVERY:
            gains = expected_excess(means, deviations, self._counted(believed).max())
        else:
            stairs = self._stairs(believed)
            gains = stairs.expected_growth(finalists.facts.peak_bytes, means, deviations)
        row: NDArray[np.intp] = finalists.rows[np.argmax(gains)]
        return row

    def _beliefs(self, scored: Scored) -> tuple[Predictor, Pool, Posterior]:
        if self._believed is None or self._believed[0] != scored.key:
            predictor, finalists = self._loop.finalists(scored)
            beliefs = predictor.beliefs(self._features(finalists))
            self._believed = (scored.key, predictor, finalists, beliefs)
        return self._believed[1:]

    def _stairs(self, scored: Scored) -> Staircase:
        return Staircase(
            scored.pool.facts.peak_bytes,
            self._counted(scored),
            limit_bytes=self._limit_bytes,
            chance=self._chance,
        )

    def _counted(self, scored: Scored) -> Floats:
        """Accuracies; but chance where a limit is passed: scores may be of another search's."""
        fits = self._breeder.fits(scored.pool.facts)
        return np.where(fits, scored.accuracies, self._chance)

    def _features(self, pool: Pool) -> Features:
        return Features(
            choices=(pool.rows[:, self._parameters] >= self._columns.steps).astype(float),
            sizes=np.log(np.stack(pool.facts, axis=1)),
            columns=self._columns,
        )

    def _spread_out(self, known: Pool, rng: np.random.Generator) -> NDArray[np.intp]:
        """One whose memory is far from that of all known ones."""
        pool = self._breeder.feasible(self._breeder.random(_NUM_SPREAD, rng)).without(known.keys)
        if not len(pool):
            return self._any(known, rng)
        distances = np.abs(np.subtract.outer(pool.facts.peak_bytes, known.facts.peak_bytes))
        nearest = distances.min(axis=1)
        row: NDArray[np.intp] = rng.choice(pool.rows[nearest >= 0.9 * nearest.max()])
        return row

    def _any(self, known: Pool, rng: np.random.Generator) -> NDArray[np.intp]:
        """A neighbour of the known ones that is new, or one of them where there is none."""
        new = self.neighbours(known.rows, known=known.rows)
        row: NDArray[np.intp] = rng.choice(new if len(new) else known.rows)
        return row


def _families(names: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of parameters, the family and the place in it: those whose names differ in their last number
    alone are of one family, and that number is their place.
    """
    stems, places = [], []
    for name in names:
        stem, _, number = name.rpartition("_")
        stems.append(stem if number.isdigit() else name)
        places.append(int(number) if number.isdigit() else 0)
    return np.unique(stems, return_inverse=True)[1], np.array(places, dtype=np.intp)
