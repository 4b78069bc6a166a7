"""What a candidate's accuracy will be, judged by those already scored: a Gaussian process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]

_JITTER = 1e-8
_CHUNK = 128
"""Candidates that are gone through together: their covariances stay in the processor's cache."""


class _Scales(NamedTuple):
    """The kernel's, for accuracies and sizes of mean 0 and variance 1, or their logarithms.

    additive, sizes, nearness: the variances that the kernel's three parts explain. size_length: in
    deviations of the sizes; step_length: in steps of choices. noise: a standard deviation.
    """

    additive: float
    sizes: float
    size_length: float
    nearness: float
    step_length: float
    noise: float


# Of the logarithms.
_PRIOR_MEANS = np.log(
    _Scales(additive=10.0, sizes=1.0, size_length=2.0, nearness=0.1, step_length=4.0, noise=0.01)
)
_PRIOR_DEVIATIONS = np.array(
    _Scales(additive=2.0, sizes=2.0, size_length=0.7, nearness=1.5, step_length=0.5, noise=1.5)
)


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is known of N candidates before they are scored.

    choices: a column for each step from a parameter's value to its next larger one, 1 where the
    candidate has taken it (N, C). sizes: logarithms of what grows with a network (N, S).
    """

    choices: Floats
    sizes: Floats

    def chunks(self, count: int) -> Iterator[Features]:
        """At most so many candidates at a time."""
        for start in range(0, len(self.choices), count):
            part = slice(start, start + count)
            yield Features(choices=self.choices[part], sizes=self.sizes[part])


class Predictor:
    """A Gaussian process over candidates (Rasmussen and Williams 2006, chapter 2).

    Its kernel is a sum of three: one that adds up what each step of each choice does on its own;
    one over the sizes, for what all of them do together; and one that falls off with every step
    between two candidates, for what choices do to each other. Scales, lengths and noise are fitted
    to the marginal likelihood (there, section 5.4), with wide priors.
    """

    def __init__(
        self, features: Features, accuracies: Floats, noise: Floats, scales: Floats | None
    ) -> None:
        """noise: the variance of each accuracy over that of a whole score.
        scales: of a predictor fitted before, to some of these; None fits them.
        """
        self._features = features
        self._center, self._scale = float(accuracies.mean()), float(accuracies.std()) or 1.0
        self._choice_center = features.choices.mean(axis=0)
        self._size_center = features.sizes.mean(axis=0)
        deviations = features.sizes.std(axis=0)
        self._size_scale = np.where(deviations > 0, deviations, 1.0)
        targets = (accuracies - self._center) / self._scale
        parts = self._parts(features, features)
        self.scales = _fit(parts, targets, noise) if scales is None else scales
        covariance = _kernel(parts, self.scales)
        _add_noise(covariance, self.scales, noise)
        self._root = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._root, True), targets)

    def means(self, features: Features) -> Floats:
        """Of N candidates, without how sure they are, which takes longer."""
        found = [self._means(self._covariance(part)) for part in features.chunks(_CHUNK)]
        return np.concatenate(found) if found else np.empty(0)

    def beliefs(self, features: Features) -> Beliefs:
        """Of N candidates, with how sure they are."""
        return Beliefs(self, features)

    def _means(self, covariance: Floats) -> Floats:
        found: Floats = self._center + self._scale * (covariance @ self._weights)
        return found

    def _covariance(self, left: Features, right: Features | None = None) -> Floats:
        """Of N and M candidates (N, M), a priori; right: else those that it was fitted to."""
        return _kernel(self._parts(left, right or self._features), self.scales)

    def _explained(self, covariance: Floats) -> Floats:
        """Columns (M, N) whose products are what the M scores tell of N candidates together."""
        found: Floats = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        return found

    def _prior_variances(self, features: Features) -> Floats:
        scales = _Scales(*np.exp(self.scales))
        choices = features.choices - self._choice_center
        additive = scales.additive * np.mean(choices**2, axis=1)
        found: Floats = additive + scales.sizes + scales.nearness
        return found

    def _parts(self, left: Features, right: Features) -> _Parts:
        ones, others = (each.choices - self._choice_center for each in (left, right))
        sizes, other_sizes = (
            (each.sizes - self._size_center) / self._size_scale for each in (left, right)
        )
        return _Parts(
            products=ones @ others.T / ones.shape[1],
            distances=_squared_distances(sizes, other_sizes),
            steps=_squared_distances(ones, others),  # zeros and ones: they count where they differ
        )


class Beliefs:
    """What a predictor holds of N candidates. means: of their accuracies (N,)."""

    def __init__(self, predictor: Predictor, features: Features) -> None:
        self._predictor = predictor
        self._features = features
        covariance = predictor._covariance(features)
        self.means = predictor._means(covariance)
        self._explained = predictor._explained(covariance)
        prior = predictor._prior_variances(features)
        self._variances = prior - np.sum(self._explained**2, axis=0)

    def deviations(self, pending: Features | None = None) -> Floats:
        """Standard deviations of the accuracies (N,), as they will be once the pending candidates
        are scored: that does not depend on what comes of these.
        """
        variances = self._variances
        if pending is not None and len(pending.choices):
            predictor = self._predictor
            explained = predictor._explained(predictor._covariance(pending))
            joint = predictor._covariance(pending, pending) - explained.T @ explained
            _add_noise(joint, predictor.scales, np.ones(len(joint)))
            across = predictor._covariance(self._features, pending) - self._explained.T @ explained
            root = cholesky(joint, lower=True)
            told = solve_triangular(root, across.T, lower=True)
            variances = variances - np.sum(told**2, axis=0)
        found: Floats = self._predictor._scale * np.sqrt(np.maximum(variances, _JITTER))
        return found


class _Parts(NamedTuple):
    """Of N and M candidates (N, M): mean product of choices, squared distance of sizes, steps
    between their choices."""

    products: Floats
    distances: Floats
    steps: Floats


def _squared_distances(left: Floats, right: Floats) -> Floats:
    """Between rows (N, M), by one product of matrices."""
    ones, others = (np.ones((len(rows), 1)) for rows in (left, right))
    squares, other_squares = (np.sum(r**2, axis=1, keepdims=True) for r in (left, right))
    found: Floats = (
        np.hstack([-2 * left, squares, ones]) @ np.hstack([right, others, other_squares]).T
    )
    return found


def _terms(parts: _Parts, by: _Scales) -> tuple[Floats, Floats, Floats]:
    """The kernel's three."""
    return (
        by.additive * parts.products,
        by.sizes * np.exp(parts.distances * (-0.5 / by.size_length**2)),
        by.nearness * np.exp(parts.steps * (-1 / by.step_length)),
    )


def _kernel(parts: _Parts, scales: Floats) -> Floats:
    additive, sizes, nearness = _terms(parts, _Scales(*np.exp(scales)))
    additive += sizes
    additive += nearness
    return additive


def _add_noise(covariance: Floats, scales: Floats, noise: Floats) -> None:
    variance = np.exp(2 * _Scales(*scales).noise)
    covariance[np.diag_indices_from(covariance)] += noise * variance + _JITTER


def _fit(parts: _Parts, targets: Floats, noise: Floats) -> Floats:
    """The most likely scales, lengths and noise, as logarithms."""

    def loss(scales: Floats) -> tuple[float, Floats]:
        """With its gradient."""
        by = _Scales(*np.exp(scales))
        additive, sizes, nearness = _terms(parts, by)
        covariance = additive + sizes + nearness
        _add_noise(covariance, scales, noise)
        root = cholesky(covariance, lower=True)
        weights = cho_solve((root, True), targets)
        from_prior = (scales - _PRIOR_MEANS) / _PRIOR_DEVIATIONS
        value = 0.5 * (targets @ weights + from_prior @ from_prior) + np.log(np.diag(root)).sum()
        # of the loss by each entry of the covariance
        slope = 0.5 * (cho_solve((root, True), np.eye(len(root))) - np.outer(weights, weights))
        slopes = _Scales(
            additive=np.vdot(slope, additive),
            sizes=np.vdot(slope, sizes),
            size_length=np.vdot(slope, sizes * parts.distances) / by.size_length**2,
            nearness=np.vdot(slope, nearness),
            step_length=np.vdot(slope, nearness * parts.steps) / by.step_length,
            noise=2 * by.noise**2 * float(np.diag(slope) @ noise),
        )
        return float(value), np.array(slopes) + from_prior / _PRIOR_DEVIATIONS

    bounds = [
        (mean - 4 * deviation, mean + 4 * deviation)
        for mean, deviation in zip(_PRIOR_MEANS, _PRIOR_DEVIATIONS, strict=True)
    ]
    found = minimize(
        loss, _PRIOR_MEANS, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}
    )
    best: Floats = found.x
    return best
