"""When a candidate is given up before it has seen all validation images.

Trials look at the images in one random order. After each chunk, the candidate is compared with a
rival that has seen them all: the most accurate one that takes no more memory. It is given up

- where it can't catch up: with all remaining images right it would still have fewer right; or
- where it lost too many of the images that one of both has right and the other wrong. A candidate
  that would be as good as its rival on all images loses each of these with probability 1/2 or
  less, so that the number it lost is judged by the exact sign test (McNemar, Psychometrika 12,
  1947). The looks share alpha evenly (Bonferroni): however many there are, a candidate as good as
  its rival is given up with probability alpha at most, over the random orders.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search.statistics.certainty import Correct, sign_test

ALPHA = 0.01
"""At most this is the probability to give up a candidate that is as good as its rival."""

MIN_IMAGES = 200
"""With fewer validation images, nothing is raced: it would save next to nothing."""

_CHUNK = 64
_MAX_CHUNKS = 16


def image_order(num_images: int, seed: int) -> NDArray[np.intp]:
    """The validation images, by index, in the order in which every trial looks at them."""
    return np.random.default_rng([seed, 1]).permutation(num_images)


def chunk_size(num_images: int) -> int:
    """How many images lie between two looks: 64, or so many that there are 16 chunks."""
    return max(_CHUNK, -(-num_images // _MAX_CHUNKS))


def is_hopeless(candidate: Correct, rival: Correct, *, looks: int, alpha: float = ALPHA) -> bool:
    """Whether a candidate that has seen len(candidate) images falls behind its rival for good.

    rival: on all images. looks: how often this is asked about a candidate, at most.
    """
    num_seen, num_left = len(candidate), len(rival) - len(candidate)
    if candidate.sum() + num_left < rival.sum():
        return True
    rival_seen = rival[:num_seen]
    lost = int((rival_seen & ~candidate).sum())
    decided = int((rival_seen != candidate).sum())
    return sign_test(lost, decided) <= alpha / looks
