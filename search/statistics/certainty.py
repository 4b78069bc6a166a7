"""How sure a difference of accuracies is that were measured on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from search.statistics.binomial import standard_error

Correct = NDArray[np.bool_]
"""Which images a network has right, in an order that all who are compared share: (images,)."""

NOISE_LEVEL = 0.05
"""A difference is within noise where its McNemar test gives a probability above this."""

_NUM_RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 250


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How far one network is above another on the same images.

    points: difference of the accuracies, 0.01 for one percent of the images. standard_error: of
    that difference, from the images on which the two differ, with half an image more of each of
    the four kinds (Agresti and Min, Statistics in Medicine 24, 2005). is_within_noise: the exact
    test of McNemar (Psychometrika 12, 1947) gives two equally good networks a difference as large
    with a probability above NOISE_LEVEL.
    """

    points: float
    standard_error: float
    is_within_noise: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How sure the choice of the best of some candidates is, from the images that judged them.

    num_compared: the chosen one among them. standard_error: of its accuracy. probability_best: how
    often it is the best of all where as many images are drawn with replacement (bootstrap: Efron,
    Annals of Statistics 7, 1979); candidates that tie share. num_rivals: how many others are not
    worse beyond noise, each by its own paired test.
    """

    num_compared: int
    standard_error: float
    probability_best: float
    num_rivals: int


def paired_gain(ours: Correct, theirs: Correct) -> Gain:
    """How far ours is above theirs, image by image."""
    won, lost = _differing(ours, theirs)
    num = len(ours) + 2
    variance = (won + lost + 1) / num - ((won - lost) / num) ** 2
    return Gain(
        points=(won - lost) / len(ours),
        standard_error=math.sqrt(variance / num),
        is_within_noise=mcnemar(ours, theirs) > NOISE_LEVEL,
    )


def choice_certainty(correct: Correct, chosen: int, seed: int) -> Choice:
    """How sure it is that the chosen row of correct (candidates, images) is the best one."""
    ours = correct[chosen]
    gains = [paired_gain(ours, theirs) for theirs in np.delete(correct, chosen, 0)]
    return Choice(
        num_compared=len(correct),
        standard_error=standard_error(float(ours.mean()), len(ours)),
        probability_best=_probability_best(correct, chosen, seed),
        num_rivals=sum(gain.is_within_noise or gain.points < 0 for gain in gains),
    )


def mcnemar(ours: Correct, theirs: Correct) -> float:
    """Two-sided probability of a difference as large as this between two that are as good.

    Exact: of the images that one of both alone has right, each has them with probability 1/2.
    """
    won, lost = _differing(ours, theirs)
    return min(1.0, 2 * sign_test(max(won, lost), won + lost))


def sign_test(lost: int, decided: int) -> float:
    """Probability to lose lost or more of decided fair rounds."""
    return float(betainc(lost, decided - lost + 1, 0.5)) if lost else 1.0


def _differing(ours: Correct, theirs: Correct) -> tuple[int, int]:
    """How many images ours alone has right, and theirs alone."""
    return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())


def _probability_best(correct: Correct, chosen: int, seed: int) -> float:
    rng, num_images = np.random.default_rng(seed), correct.shape[1]
    ones_and_zeros = correct.astype(np.float32)
    shares = []
    for _ in range(_NUM_RESAMPLES // _RESAMPLES_AT_ONCE):
        # how often each image is drawn: (resamples, images)
        draws = rng.multinomial(
            num_images, np.full(num_images, 1 / num_images), _RESAMPLES_AT_ONCE
        ).astype(np.float32)
        num_correct = ones_and_zeros @ draws.T  # whole numbers that float32 holds exactly
        is_best = num_correct == num_correct.max(0)
        shares.append(is_best[chosen] / is_best.sum(0))
    return float(np.mean(shares))
