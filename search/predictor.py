"""What a candidate's accuracy will be, judged by those already scored: a Gaussian process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]

_JITTER = 1e-8
# Means and deviations of the logarithms of: the scale of the additive part, that of the part over
# sizes, its length, and the noise, for accuracies and sizes of mean 0 and variance 1.
_PRIOR_MEANS = np.log([10.0, 1.0, 2.0, 0.05])
_PRIOR_DEVIATIONS = np.array([2.0, 2.0, 0.7, 1.5])


@dataclass(frozen=True, kw_only=True)
class Features:
    """What is known of N candidates before they are scored.

    choices: a column for each step from a parameter's value to its next larger one, 1 where the
    candidate has taken it (N, C). sizes: logarithms of what grows with a network (N, S).
    """

    choices: Floats
    sizes: Floats


class Predictor:
    """A Gaussian process over candidates (Rasmussen and Williams 2006, chapter 2).

    Its kernel is a sum of two: one that adds up what each step of each choice does on its own, and
    one over the sizes, for what all of them do together. Whatever else choices do to each other
    counts as noise: dozens of choices have more of it than a search's scores could tell. Scales,
    length and noise are fitted to the marginal likelihood (there, section 5.4), with wide priors.
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
        return self._means(self._covariance(features))

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
        additive, sizes, _, _ = np.exp(self.scales)
        choices = features.choices - self._choice_center
        found: Floats = additive * np.mean(choices**2, axis=1) + sizes
        return found

    def _parts(self, left: Features, right: Features) -> _Parts:
        ones, others = (each.choices - self._choice_center for each in (left, right))
        sizes, other_sizes = (
            (each.sizes - self._size_center) / self._size_scale for each in (left, right)
        )
        return _Parts(
            products=ones @ others.T / ones.shape[1],
            distances=np.maximum(
                np.sum(sizes**2, 1)[:, None]
                + np.sum(other_sizes**2, 1)
                - 2 * sizes @ other_sizes.T,
                0,
            ),
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
    """Of N and M candidates (N, M): mean product of choices, squared distance of sizes."""

    products: Floats
    distances: Floats


def _kernel(parts: _Parts, scales: Floats) -> Floats:
    additive, sizes, length, _ = np.exp(scales)
    found: Floats = additive * parts.products + sizes * np.exp(
        parts.distances * (-0.5 / length**2)
    )
    return found


def _add_noise(covariance: Floats, scales: Floats, noise: Floats) -> None:
    covariance[np.diag_indices_from(covariance)] += noise * np.exp(2 * scales[-1]) + _JITTER


def _fit(parts: _Parts, targets: Floats, noise: Floats) -> Floats:
    """The most likely scales, length and noise, as logarithms."""

    def loss(scales: Floats) -> float:
        covariance = _kernel(parts, scales)
        _add_noise(covariance, scales, noise)
        root = cholesky(covariance, lower=True)
        fit = 0.5 * targets @ cho_solve((root, True), targets)
        unlikely = 0.5 * np.sum(((scales - _PRIOR_MEANS) / _PRIOR_DEVIATIONS) ** 2)
        return float(fit + np.log(np.diag(root)).sum() + unlikely)

    bounds = [
        (mean - 4 * deviation, mean + 4 * deviation)
        for mean, deviation in zip(_PRIOR_MEANS, _PRIOR_DEVIATIONS, strict=True)
    ]
    found = minimize(loss, _PRIOR_MEANS, method="L-BFGS-B", bounds=bounds, options={"maxiter": 30})
    best: Floats = found.x
    return best
