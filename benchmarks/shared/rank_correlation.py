"""How far two orders of the same things agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

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


def agreement(*pairs: tuple[Sequence[float], Sequence[float]]) -> Agreement:
    """Of two rankings of the same things; of several such pairs, of different things each, the
    mean of their taus. The percentile bootstrap, of each pair's things for themselves, has a fixed
    seed: equal input gives equal intervals.
    """
    rng = np.random.default_rng(0)
    both = [np.array(pair, dtype=float) for pair in pairs]

    def resampled() -> float:
        drawn = [each[:, rng.integers(each.shape[1], size=each.shape[1])] for each in both]
        return mean(kendall_tau(*each) for each in drawn)

    low, high = np.percentile([resampled() for _ in range(_RESAMPLES)], _INTERVAL_PERCENT)
    tau = mean(kendall_tau(*pair) for pair in pairs)
    return Agreement(tau=tau, low=float(low), high=float(high))
