"""What a candidate's accuracy will be, judged by those already scored: a Gaussian process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from search.sampler.kernel import (
    JITTER,
    Columns,
    Floats,
    Points,
    Scales,
    add_noise,
    curved_terms,
    effects,
    fit,
)

_CHUNK = 128
"""Candidates that are gone through together: their covariances stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is known of N candidates before they are scored.

    choices: a column for each step from a parameter's value to its next larger one, 1 where the
    candidate has taken it (N, C). sizes: logarithms of what grows with a network (N, S). columns:
    what the choices' columns are; by default the only steps of parameters of one family.
    """

    choices: Floats
    sizes: Floats
    columns: Columns | None = None

    def chunks(self, count: int) -> Iterator[Features]:
        """At most so many candidates at a time."""
        for start in range(0, len(self.choices), count):
            part = slice(start, start + count)
            yield replace(self, choices=self.choices[part], sizes=self.sizes[part])


class Predictor:
    """A Gaussian process over candidates (Rasmussen and Williams 2006, chapter 2).

    Its kernel is a sum of three: one that adds up what each step of each choice does on its own;
    one over the sizes, for what all of them do together; and one that falls off with every step
    between two candidates, for what choices do to each other. Choices of a family, as the kernel
    sizes of all blocks, have scales of their own, and expect like effects of each other the more,
    the nearer their blocks are. Scales are fitted to the marginal likelihood.
    """

    def __init__(
        self, features: Features, accuracies: Floats, noise: Floats, scales: Floats | None
    ) -> None:
        """noise: the variance of each accuracy over that of a whole score.
        scales: of a predictor fitted before, to some of these; None fits them.
        """
        self._center, self._scale = float(accuracies.mean()), float(accuracies.std()) or 1.0
        self._choice_center = features.choices.mean(axis=0)
        self._size_center = features.sizes.mean(axis=0)
        deviations = features.sizes.std(axis=0)
        self._size_scale = np.where(deviations > 0, deviations, 1.0)
        self._columns = features.columns or _one_family(features.choices.shape[1])
        self._points = self._placed(features)
        targets = (accuracies - self._center) / self._scale
        if scales is None:
            scales = fit(self._columns, self._points, targets, noise)
        self.scales = scales
        self._by = Scales.of(scales)
        self._effects = effects(self._columns, self._by)
        self._seen = self._effects @ self._points.choices.T
        covariance = self._covariance(self._points, self._points)
        add_noise(covariance, self._by, noise)
        self._root = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._root, True), targets)
        told = solve_triangular(self._root, self._seen.T, lower=True)
        variances, directions = np.linalg.eigh(self._effects - told.T @ told)
        self._unsure = directions * np.sqrt(np.maximum(variances, 0))

    def means(self, features: Features) -> Floats:
        """Of N candidates, without how sure they are, which takes longer."""
        return self.hopes(features, 0.0)

    def hopes(self, features: Features, optimism: float) -> Floats:
        """Means of N candidates, and so many deviations of what their choices add up to."""
        found = []
        for part in features.chunks(_CHUNK):
            points = self._placed(part)
            means = self._means(self._covariance(points, self._points))
            variances = np.sum((points.choices @ self._unsure) ** 2, axis=1)
            found.append(means + optimism * self._scale * np.sqrt(variances))
        return np.concatenate(found) if found else np.empty(0)

    def beliefs(self, features: Features) -> Posterior:
        """Of N candidates, with how sure they are."""
        return Posterior(self, features)

    def _placed(self, features: Features) -> Points:
        return Points(
            choices=features.choices - self._choice_center,
            sizes=(features.sizes - self._size_center) / self._size_scale,
        )

    def _covariance(self, left: Points, right: Points) -> Floats:
        """Of N and M candidates (N, M), a priori."""
        sizes, nearness = curved_terms(self._columns, self._by, left, right)
        others = self._seen if right is self._points else self._effects @ right.choices.T
        found: Floats = left.choices @ others
        found += sizes
        found += nearness
        return found

    def _means(self, covariance: Floats) -> Floats:
        """covariance: with those that it was fitted to (N, M)."""
        found: Floats = self._center + self._scale * (covariance @ self._weights)
        return found

    def _explained(self, covariance: Floats) -> Floats:
        """Columns (M, N) whose products are what the M scores tell of N candidates together."""
        found: Floats = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        return found

    def _prior_variances(self, points: Points) -> Floats:
        additive = np.sum((points.choices @ self._effects) * points.choices, axis=1)
        found: Floats = additive + self._by.sizes + self._by.nearness
        return found


class Posterior:
    """What a predictor holds of N candidates. means: of their accuracies (N,)."""

    def __init__(self, predictor: Predictor, features: Features) -> None:
        self._predictor = predictor
        self._points = predictor._placed(features)
        covariance = predictor._covariance(self._points, predictor._points)
        self.means = predictor._means(covariance)
        self._explained = predictor._explained(covariance)
        prior = predictor._prior_variances(self._points)
        self._variances = prior - np.sum(self._explained**2, axis=0)

    def deviations(self, pending: Features | None = None) -> Floats:
        """Standard deviations of the accuracies (N,), as they will be once the pending candidates
        are scored: that does not depend on what comes of these.
        """
        variances = self._variances
        if pending is not None and len(pending.choices):
            predictor = self._predictor
            points = predictor._placed(pending)
            explained = predictor._explained(predictor._covariance(points, predictor._points))
            joint = predictor._covariance(points, points) - explained.T @ explained
            add_noise(joint, predictor._by, np.ones(len(joint)))
            across = predictor._covariance(self._points, points) - self._explained.T @ explained
            root = cholesky(joint, lower=True)
            told = solve_triangular(root, across.T, lower=True)
            variances = variances - np.sum(told**2, axis=0)
        found: Floats = self._predictor._scale * np.sqrt(np.maximum(variances, JITTER))
        return found


def _one_family(count: int) -> Columns:
    return Columns(
        families=np.zeros(count, dtype=np.intp),
        places=np.arange(count),
        steps=np.ones(count, dtype=np.intp),
    )
