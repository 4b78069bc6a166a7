"""The subnet of a candidate with nothing but its head fitted: where some trainings start, and what
all are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.ridge import fit_ridge
from search.adaptation.views import features_of, spread_evenly
from search.elastic.supernet import Supernet
from search.space.architecture import SupernetSpec
from search.space.candidates import Candidate
from search.space.lite_residual_sizes import SIZES
from search.space.pricing import network_of
from tinytl.description.method import Method
from tinytl.engine.network import Network, build_network
from tinytl.training.data import ImageStore, Split

MAX_IMAGES = 10_000
"""That a head is fitted to, spread evenly over the classes: more would hardly change it."""


def pretrained_subnet(
    supernet: Supernet,
    candidate: Candidate,
    store: ImageStore,
    *,
    method: Method = Method.HEAD,
    splits: Sequence[Split] = ("train",),
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Tensor]:
    """Weights of the candidate's subnet as pretrained, for a training with this method, as
    tinytl.engine.network.build_network takes them.

    The head is a ridge regression on features of the images of these splits; lite residual
    modules, where the method has them, are not looked at for it. Raises CancelledError.
    """
    size = candidate.lite_residual
    fresh = AdaptedSupernet.fresh(
        supernet,
        store.num_classes,
        method=method,
        lite_residual_sizes=SIZES if size is None else (size,),
        seed=seed,
    )
    _, weights = fresh.subnet_weights(candidate, store, own_head=False)
    network = head_only(supernet.spec, candidate, weights, store.num_classes)
    total = sum(len(store.split(name)) for name in splits)
    parts = [
        (split, spread_evenly(len(split) * min(MAX_IMAGES, total) // total, len(split)))
        for split in map(store.split, splits)
    ]
    features, labels = features_of(network, parts, candidate.resolution, should_stop=should_stop)
    head = fit_ridge(features, labels, store.num_classes)
    return weights | {
        "classifier.linear.weight": head.weight,
        "classifier.linear.bias": head.bias,
    }


def head_only(
    spec: SupernetSpec, candidate: Candidate, weights: Mapping[str, Tensor], num_classes: int
) -> Network:
    """What pretrained_subnet gives, for any method, as a network without lite residual modules."""
    config = network_of(spec, candidate, Method.HEAD, num_classes)
    plain = {name: value for name, value in weights.items() if ".lite_residual." not in name}
    return build_network(config, Method.HEAD, plain)
