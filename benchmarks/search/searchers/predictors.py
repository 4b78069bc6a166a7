"""The accuracy predictor that the peers of benchmarks.search.searchers.evolution search over.

OFA's own, a perceptron of three layers, is for thousands of scored subnets: from 50 to 200 of
them, ridge regression foretells far better, so both peers get that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.landscapes import Floats, Landscape, Rows

Predict = Callable[[Rows], Floats]

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_RBF_LENGTHS = (0.5, 1.0, 2.0)


def one_hot(landscape: Landscape, rows: Rows) -> Floats:
    """Choices (N, F), those of absent blocks all zero."""
    present = landscape.present(rows)
    columns = [
        (rows[:, [column]] == np.arange(size)) & present[:, [column]]
        for column, size in enumerate(landscape.sizes)
    ]
    return np.concatenate(columns, axis=1).astype(np.float64)


def fit_ridge(landscape: Landscape, rows: Rows, accuracies: Floats) -> Predict:
    """Ridge regression, linear or with a Gaussian kernel: kernel and ridge of the least
    leave-one-out error, which has a closed form.
    """
    center = accuracies.mean()
    x, targets = one_hot(landscape, rows), accuracies - center
    best_error, chosen = np.inf, None
    for kernel in _kernels(len(landscape.sizes)):
        gram = kernel(x, x)
        for ridge in _RIDGES:
            inverse = np.linalg.inv(gram + ridge * np.eye(len(x)))
            weights = inverse @ targets
            error = float(np.mean((weights / np.diag(inverse)) ** 2))
            if error < best_error:
                best_error, chosen = error, (kernel, weights)
    assert chosen is not None
    kernel, weights = chosen
    return lambda rows: center + kernel(one_hot(landscape, rows), x) @ weights


def _kernels(num_choices: int) -> Iterator[Callable[[Floats, Floats], Floats]]:
    """Of one-hot choices, scaled so that a candidate is 1 with itself."""
    yield lambda left, right: left @ right.T / num_choices
    for length in _RBF_LENGTHS:

        def gaussian(left: Floats, right: Floats, length: float = length) -> NDArray[np.float64]:
            squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
            return np.asarray(np.exp(-squared / (2 * num_choices * length**2)))

        yield gaussian
