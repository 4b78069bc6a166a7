"""How sure an accuracy is. No NumPy here: whoever talks to the service imports it."""

from __future__ import annotations

import math


def standard_error(accuracy: float, num_images: int) -> float:
    """Of an accuracy that was found on so many images, roughly.

    The binomial's, with two images more of either kind: no accuracy of few images is certain
    (Agresti and Coull, The American Statistician 52, 1998).
    """
    num = num_images + 4
    share = (accuracy * num_images + 2) / num
    return math.sqrt(share * (1 - share) / num)
