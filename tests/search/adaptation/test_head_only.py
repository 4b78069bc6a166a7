"""The subnet with nothing but its head fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from search.adaptation.head_only import head_only, pretrained_subnet
from search.elastic.supernet import load_supernet
from search.space.candidates import SearchSpace
from search.space.pricing import network_of
from search.supernets.registry import DEFAULT_SUPERNET
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.engine.network import Network, build_network
from tinytl.errors import CancelledError
from tinytl.training.data import ImageSplit, ImageStore, Split
from tinytl.training.train import class_probabilities, evaluate


def striped(count: int, seed: int) -> ImageSplit:
    """Of two classes: stripes from side to side, and from top to bottom."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) * 2 // count
    images = rng.integers(0, 256, (count, 3, 32, 1), dtype=np.uint8).repeat(32, 3)
    images[labels == 1] = images[labels == 1].swapaxes(2, 3)
    return ImageSplit(images, labels)


def test_its_head_tells_other_images_apart_and_all_else_is_as_pretrained(tmp_path: Path) -> None:
    supernet = load_supernet(DEFAULT_SUPERNET, tmp_path)
    splits: dict[Split, ImageSplit] = {
        "train": striped(40, 0),
        "val": striped(20, 1),
        "test": striped(30, 2),
    }
    store = ImageStore(splits, "ab", 32)
    space = SearchSpace(supernet=supernet.spec, resolutions=(32,))
    candidate = space.candidate(supernet.spec.smallest, 32)

    def fitted(splits: tuple[Split, ...] = ("train",)) -> Network:
        weights = pretrained_subnet(supernet, candidate, store, splits=splits)
        return head_only(supernet.spec, candidate, weights, store.num_classes)

    network = fitted()
    assert network.method is Method.HEAD
    assert evaluate(network, store.split("test"), resolution=32, batch_size=8) > 0.85
    refit = fitted(("train", "val"))
    for name, value in refit.state_dict().items():
        is_head = name.startswith("classifier.")
        assert torch.equal(value, network.state_dict()[name]) != is_head, name
    with pytest.raises(CancelledError):
        pretrained_subnet(supernet, candidate, store, should_stop=lambda: True)


def test_a_training_with_lite_residuals_starts_where_the_head_alone_is(tmp_path: Path) -> None:
    supernet = load_supernet("efficientnet_lite0", tmp_path)
    train = striped(40, 0)
    store = ImageStore({"train": train}, "ab", 32)
    space = SearchSpace(
        supernet=supernet.spec, resolutions=(32,), lite_residual_sizes=(None, LiteResidualSize())
    )
    candidate = space.candidate(supernet.spec.smallest, 32, LiteResidualSize())
    method = Method.LITE_RESIDUAL_BIAS
    weights = pretrained_subnet(supernet, candidate, store, method=method)
    config = network_of(supernet.spec, candidate, method, store.num_classes)
    start = build_network(config, method, weights)
    compared = head_only(supernet.spec, candidate, weights, store.num_classes)
    found, expected = (
        class_probabilities(network, train, resolution=32, batch_size=8)
        for network in (start, compared)
    )
    assert np.array_equal(found, expected)
    assert (found.argmax(1) == train.labels).mean() > 0.85
