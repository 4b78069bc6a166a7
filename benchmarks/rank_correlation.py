"""How far two orders of the same things agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000
_INTERVAL_PERCENT = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Kendall's tau-b, with the 95 % interval of a bootstrap over the things that are ranked."""

    tau: float
    low: float
    high: float


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b, from -1 to 1: (concordant - discordant) / sqrt(n1 n2), with n1 and n2 the
    pairs that are not tied in the first and in the second (Kendall 1945). 0 where either has no
    such pair, as it ranks nothing.
    """
    signs = [np.sign(np.subtract.outer(values, values)) for values in (first, second)]
    untied = [float(np.abs(sign).sum()) for sign in signs]
    if 0 in untied:
        return 0.0
    return float((signs[0] * signs[1]).sum() / np.sqrt(untied[0] * untied[1]))


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """The percentile bootstrap with a fixed seed: equal input gives equal intervals."""
    rng = np.random.default_rng(0)
    both = np.array([first, second], dtype=float)
    resampled = [
        kendall_tau(*both[:, rng.integers(len(first), size=len(first))]) for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(resampled, _INTERVAL_PERCENT)
    return Agreement(tau=kendall_tau(first, second), low=float(low), high=float(high))
