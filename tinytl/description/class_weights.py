"""Which training images an epoch looks at where some classes have many more than others."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ClassWeights = Literal["auto", "balanced", "none"]

UNEVEN_RATIO = 3.0
"""With "auto", classes are balanced where the largest has this many times the smallest's images;
benchmarks/accuracy/class_weights.py shows what that does."""


def is_balanced(class_weights: ClassWeights, labels: NDArray[Any]) -> bool:
    """Whether all classes are to count alike. labels: (N,), of the training images."""
    if class_weights != "auto":
        return class_weights == "balanced"
    counts = np.bincount(labels)
    present = counts[counts > 0]
    return bool(present.max() >= UNEVEN_RATIO * present.min())


def balanced_order(labels: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many images as there are, (N,), every class as often as the others, give or take one.

    Of a class with more images than its turns a random part is taken, of one with fewer each image
    several times: weights of the classes in the loss would do the same on average, but in steps of
    very different sizes.
    """
    classes = rng.permutation(np.unique(labels))
    turns = np.full(len(classes), len(labels) // len(classes))
    turns[: len(labels) % len(classes)] += 1
    chosen = [
        _taken(np.flatnonzero(labels == label), count, rng)
        for label, count in zip(classes, turns, strict=True)
    ]
    order: NDArray[np.int64] = rng.permutation(np.concatenate(chosen))
    return order


def _taken(images: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = [rng.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate(rounds)[:count] if rounds else images[:0]
