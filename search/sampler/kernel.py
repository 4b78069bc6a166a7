"""How alike candidates are, as a predictor takes it: the kernel of a Gaussian process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

Floats = NDArray[np.float64]

JITTER = 1e-8

_PLACE_LENGTH = 3.0
_FLOOR = 0.5
"""Of the likeness that two places have, this much is left however far apart they are."""

_OTHER_STEP = 0.5
"""How alike two steps of one parameter are, or of parameters of a family."""

_MAX_ITERATIONS = 30


@dataclass(frozen=True, eq=False)
class Columns:
    """Which step of which parameter each column of the choices is (C,).

    families: 0 to F - 1, of parameters that say the same of other places in the network. places:
    of the parameter in its family. steps: 1 for that from a parameter's first value to its second.
    """

    families: NDArray[np.intp]
    places: NDArray[np.intp]
    steps: NDArray[np.intp]

    @cached_property
    def kinship(self) -> Floats:
        """How alike the effects of two columns are that relatives share (C, C)."""

        def differ(values: NDArray[np.intp]) -> Floats:
            return np.abs(np.subtract.outer(values, values)).astype(float)

        nearby = _FLOOR + (1 - _FLOOR) * np.exp(-differ(self.places) / _PLACE_LENGTH)
        steps = np.where(differ(self.steps) > 0, _OTHER_STEP, 1.0)
        found: Floats = nearby * steps * (differ(self.families) == 0)
        return found

    def by_family(self, values: Floats) -> Floats:
        """Sums (F,) of values of columns (C,)."""
        found: Floats = np.bincount(self.families, weights=values).astype(float)
        return found


class Points(NamedTuple):
    """N candidates: choices (N, C) about their mean, sizes (N, S) of mean 0 and variance 1."""

    choices: Floats
    sizes: Floats


class Scales(NamedTuple):
    """For accuracies of mean 0 and variance 1.

    sizes, nearness: the variances that these parts of the kernel explain. size_length: in
    deviations of the sizes. noise: a standard deviation. For each family (F,): own and shared, the
    variances of a step's effect, that no other has and that relatives have in common; and
    step_length, in steps.
    """

    sizes: float
    size_length: float
    nearness: float
    noise: float
    own: Floats
    shared: Floats
    step_length: Floats

    @staticmethod
    def of(logarithms: Floats) -> Scales:
        values = np.exp(logarithms)
        sizes, size_length, nearness, noise = values[:4].tolist()
        return Scales(sizes, size_length, nearness, noise, *values[4:].reshape(3, -1))


# Of the logarithms; own and shared are what all columns together explain.
_PRIOR_MEANS = np.log([1.0, 2.0, 0.1, 0.01, 2.5, 2.5, 4.0])
_PRIOR_DEVIATIONS = np.array([2.0, 0.7, 1.5, 1.5, 1.5, 1.5, 1.0])
_FIRST_OF_FAMILIES = 4


def effects(columns: Columns, by: Scales) -> Floats:
    """Covariances (C, C) of what each step does on its own, a priori."""
    found = by.shared[columns.families, None] * columns.kinship
    found[np.diag_indices_from(found)] += by.own[columns.families]
    return found


def curved_terms(
    columns: Columns, by: Scales, left: Points, right: Points
) -> tuple[Floats, Floats]:
    """The kernel's parts beside the effects that add up, of N and M candidates (N, M) each: the
    sizes; and nearness, which falls off with every step between two candidates.
    """
    reach = np.sqrt(1 / by.step_length)[columns.families]
    steps = _squared_distances(left.choices * reach, right.choices * reach)
    distances = _squared_distances(left.sizes, right.sizes)
    return (
        by.sizes * np.exp(distances * (-0.5 / by.size_length**2)),
        by.nearness * np.exp(-steps),  # zeros and ones: they count where they differ
    )


def add_noise(covariance: Floats, by: Scales, noise: Floats) -> None:
    """noise: the variance of each accuracy over that of a whole score."""
    covariance[np.diag_indices_from(covariance)] += noise * by.noise**2 + JITTER


def fit(columns: Columns, points: Points, targets: Floats, noise: Floats) -> Floats:
    """The most likely scales, as logarithms (Rasmussen and Williams 2006, section 5.4), with wide
    priors."""
    num_columns, num_families = len(columns.families), int(columns.families.max()) + 1
    repeats = np.ones(len(_PRIOR_MEANS), dtype=int)
    repeats[_FIRST_OF_FAMILIES:] = num_families
    per_column = np.zeros(len(_PRIOR_MEANS))
    per_column[_FIRST_OF_FAMILIES : _FIRST_OF_FAMILIES + 2] = np.log(num_columns)
    means = np.repeat(_PRIOR_MEANS - per_column, repeats)
    deviations = np.repeat(_PRIOR_DEVIATIONS, repeats)
    choices, identity = points.choices, np.eye(len(targets))
    distances = _squared_distances(points.sizes, points.sizes)

    def loss(logarithms: Floats) -> tuple[float, Floats]:
        """With its gradient."""
        by = Scales.of(logarithms)
        sizes, nearness = curved_terms(columns, by, points, points)
        covariance = choices @ effects(columns, by) @ choices.T + sizes + nearness
        add_noise(covariance, by, noise)
        root = cholesky(covariance, lower=True)
        weights = cho_solve((root, True), targets)
        from_prior = (logarithms - means) / deviations
        value = 0.5 * (targets @ weights + from_prior @ from_prior) + np.log(np.diag(root)).sum()
        # of the loss by each entry of the covariance, and by that of the effects
        slope = 0.5 * (cho_solve((root, True), identity) - np.outer(weights, weights))
        by_effect = choices.T @ slope @ choices
        by_nearness = slope * nearness
        # summed over pairs: how far apart they are in each column
        apart = by_nearness.sum(axis=0) @ choices**2
        apart -= np.sum(choices * (by_nearness @ choices), axis=0)
        slopes = [
            np.vdot(slope, sizes),
            np.vdot(slope, sizes * distances) / by.size_length**2,
            by_nearness.sum(),
            2 * by.noise**2 * float(np.diag(slope) @ noise),
            *(by.own * columns.by_family(np.diag(by_effect))),
            *(by.shared * columns.by_family(np.sum(columns.kinship * by_effect, axis=1))),
            *(2 * columns.by_family(apart) / by.step_length),
        ]
        return float(value), np.array(slopes) + from_prior / deviations

    bounds = list(zip(means - 4 * deviations, means + 4 * deviations, strict=True))
    found = minimize(
        loss,
        means,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MAX_ITERATIONS},
    )
    best: Floats = found.x
    return best


def _squared_distances(left: Floats, right: Floats) -> Floats:
    """Between rows (N, M), by one product of matrices."""
    ones, others = (np.ones((len(rows), 1)) for rows in (left, right))
    squares, other_squares = (np.sum(r**2, axis=1, keepdims=True) for r in (left, right))
    found: Floats = (
        np.hstack([-2 * left, squares, ones]) @ np.hstack([right, others, other_squares]).T
    )
    return found
