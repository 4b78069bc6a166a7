"""The accuracy that a trial is judged by."""

from __future__ import annotations

from collections.abc import Callable

from search.adapted import AdaptedSupernet
from search.space import Candidate
from tinytl.data import ImageStore
from tinytl.network import build_network
from tinytl.train import evaluate

_EVALUATION_BATCH = 64


def score(
    adapted: AdaptedSupernet,
    candidate: Candidate,
    store: ImageStore,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    """Top-1 accuracy, 0 to 1, on the validation split with weights as they are delivered:
    batch norm statistics recalibrated and folded in, frozen weights in 8 bits. Raises
    CancelledError.
    """
    config, weights = adapted.subnet_weights(candidate, store)
    network = build_network(config, adapted.method, weights)
    return evaluate(
        network,
        store.split("val"),
        resolution=candidate.resolution,
        batch_size=_EVALUATION_BATCH,
        should_stop=should_stop,
    )
