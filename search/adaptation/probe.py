"""How well a supernet tells the target classes apart, once it has been trained a little.

A linear probe (Alain and Bengio, arXiv 1610.01644): ridge regression of the classes on pooled
features of one subnet, judged by leaving out each image once. The subnet is trained for an epoch
or a few before: where images are far from those that a supernet comes from, features as they are
tell nothing of what lite residual modules will make of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.ridge import fit_ridge
from search.adaptation.views import features_of, spread_evenly
from search.elastic.supernet import Supernet
from search.space.candidates import Candidate
from search.space.lite_residual_sizes import SIZES, method_of
from search.statistics.certainty import Correct
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import TrainSettings, train

MAX_IMAGES = 400
"""Of the training and validation images, spread evenly over each split's classes."""

_PLAN = Plan(batch_size=8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """Of one subnet at one resolution. correct: which images it has right, (images,), in an order
    that all probes of the same data share."""

    resolution: int
    correct: Correct

    @property
    def accuracy(self) -> float:
        """Top-1, 0 to 1, each image told by all others."""
        return float(self.correct.mean())


def probe(
    supernet: Supernet,
    candidate: Candidate,
    store: ImageStore,
    *,
    method: Method,
    settings: TrainSettings,
    should_stop: Callable[[], bool] = lambda: False,
) -> Probe:
    """Train a candidate of a search with this method on some hundred images, and probe its
    features on these and on validation images. Raises CancelledError.
    """
    size = candidate.lite_residual
    fresh = AdaptedSupernet.fresh(
        supernet,
        store.num_classes,
        method=method_of(method, size),
        lite_residual_sizes=SIZES if size is None else (size,),
        seed=settings.seed,
    )
    few = _some_of(store, candidate.resolution)
    config, weights = fresh.subnet_weights(candidate, few)
    network = build_network(config, fresh.method_of(candidate), weights)
    train(
        network,
        few,
        resolution=candidate.resolution,
        plan=_PLAN,
        settings=settings,
        should_stop=should_stop,
    )
    parts = [(split, range(len(split))) for split in (few.split("train"), few.split("val"))]
    features, labels = features_of(network, parts, candidate.resolution, should_stop=should_stop)
    correct = fit_ridge(features, labels, store.num_classes).left_out.argmax(1) == labels
    return Probe(resolution=candidate.resolution, correct=correct.numpy())


def _some_of(store: ImageStore, side: int) -> ImageStore:
    """At most MAX_IMAGES of its training and validation images, as squares of this side."""
    names: tuple[Split, ...] = ("train", "val")
    total = sum(len(store.split(name)) for name in names)
    splits: dict[Split, ImageSplit] = {}
    for name in names:
        split = store.split(name)
        count = len(split) * min(MAX_IMAGES, total) // total
        indices = spread_evenly(count, len(split))
        splits[name] = ImageSplit(split.batch(indices, side).numpy(), split.labels[indices])
    return ImageStore(splits, store.classes, side, store.squaring)
