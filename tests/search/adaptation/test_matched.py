"""Supernets whose subnets' statistics are matched to the full network's."""

import numpy as np
import pytest
import torch

from search.adaptation import adapted as adapted_module
from search.adaptation.adapt import AdaptedSupernet, AdaptSettings, adapt
from search.adaptation.adapted import calibration_batches
from search.adaptation.score import score
from search.elastic.supernet import Supernet
from search.space.architecture import SupernetSpec
from search.space.candidates import SearchSpace
from search.statistics.racing import image_order
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.training.data import ImageSplit, ImageStore

LITE = "efficientnet_lite0"
HEAD = ("classifier.linear.weight", "classifier.linear.bias")


@pytest.fixture(scope="module")
def store():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 3, 40, 40), dtype=np.uint8)
    split = ImageSplit(images, np.repeat([0, 1, 2], 4))
    return ImageStore({"train": split, "val": split, "test": split}, ("a", "b", "c"), 40)


@pytest.fixture
def adapted(elastic_network, store):
    spec = SupernetSpec.parse(LITE)
    supernet = Supernet(spec, elastic_network(LITE).requires_grad_(False), 7)
    return AdaptedSupernet.fresh(supernet, store.num_classes, method=Method.LITE_RESIDUAL_BIAS)


def candidate_of(adapted, subnet, resolution=32):
    space = SearchSpace(supernet=adapted.spec, resolutions=(32, 40))
    return space.candidate(subnet, resolution)


def test_the_full_network_keeps_its_statistics(adapted, store):
    candidate = candidate_of(adapted, adapted.spec.largest)
    _, weights = adapted.subnet_weights(candidate, store)
    _, shipped = adapted.supernet.extract(adapted.spec.largest)
    changed = {key for key, value in shipped.items() if not torch.equal(weights[key], value)}
    assert changed == set(HEAD)


def test_the_head_is_of_the_subnet_s_own_features(adapted, store):
    """It tells the images apart that it was found on, unlike the supernet's."""
    candidate = candidate_of(adapted, adapted.spec.smallest)
    config, weights = adapted.subnet_weights(candidate, store)
    split = store.split("train")
    images, labels = split.batch(range(12), 32), split.labels_of(range(12))
    network = build_network(config, adapted.method, weights)
    found = (network(images).argmax(1) == labels).sum()
    _, shipped = adapted.supernet.extract(adapted.spec.smallest)
    network = build_network(config, adapted.method, weights | {key: shipped[key] for key in HEAD})
    assert found > 9 > (network(images).argmax(1) == labels).sum()


def test_subnets_are_matched_and_the_supernet_stays_as_it_is(adapted, store):
    subnet = adapted.spec.smallest
    before = {k: v.clone() for k, v in adapted.supernet.network.state_dict().items()}
    config, weights = adapted.subnet_weights(candidate_of(adapted, subnet), store)
    assert all(torch.equal(v, before[k]) for k, v in adapted.supernet.network.state_dict().items())
    _, shipped = adapted.supernet.extract(subnet)
    found = {key for key, value in shipped.items() if not torch.equal(weights[key], value)}
    assert found
    assert all(".bn." in key or key in HEAD for key in found)
    build_network(config, adapted.method, weights)


def test_a_score_tells_each_validation_image_by_all_others(adapted):
    """Which are told right is given in the order of looking, and nothing is given up early."""
    rng = np.random.default_rng(1)

    def split(count):
        images = rng.integers(0, 256, (count, 3, 40, 1), dtype=np.uint8).repeat(40, 3)
        labels = np.arange(count) * 3 // count
        images[labels == 1] = images[labels == 1].swapaxes(2, 3)
        images[labels == 2] = 40
        return ImageSplit(images, labels)

    val = split(18)
    val.labels[0] = 2  # which it does not look like
    images = ImageStore({"train": split(24), "val": val, "test": split(3)}, "abc", 40)
    candidate = candidate_of(adapted, adapted.spec.smallest)
    never = np.ones(18, dtype=np.bool_)
    found, again = (score(adapted, candidate, images, seed=3, rivals=(never,)) for _ in range(2))
    assert found.is_complete
    assert found.num_images == 18
    assert 0 < found.loss == again.loss
    wrong = image_order(18, 3)[~found.correct]
    assert 0 in wrong
    assert found.accuracy > 0.5
    assert found.accuracy == pytest.approx(1 - len(wrong) / 18)


def test_targets_are_found_once_for_a_resolution_and_a_size(adapted, store, monkeypatch):
    calls = []
    original = adapted_module.targets_of

    def count(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(adapted_module, "targets_of", count)
    for resolution in (32, 40, 32):
        adapted.subnet_weights(candidate_of(adapted, adapted.spec.smallest, resolution), store)
    assert len(calls) == 2


def test_adaptation_leaves_the_statistics(elastic_network, store):
    """They are the full network's, which is what is trained."""
    spec = SupernetSpec.parse(LITE)
    supernet = Supernet(spec, elastic_network(LITE).requires_grad_(False), 7)
    settings = AdaptSettings(
        method=Method.BIAS, lite_residual_sizes=(LiteResidualSize(),), steps=2, batch_size=4
    )
    found = adapt(supernet, store, (32, 40), settings).supernet.network.state_dict()
    for key, before in supernet.network.state_dict().items():
        if key.startswith("classifier."):
            continue
        is_trained = key.endswith(".bias")
        assert torch.equal(found[key], before) != is_trained, key


def test_large_images_come_fewer_at_once(store):
    spec = SupernetSpec.parse(LITE)

    def sizes(resolution):
        device = torch.device("cpu")
        batches = calibration_batches(store, resolution, 128, spec.normalization, device)
        return [len(batch) for batch in batches]

    assert sizes(32) == [12]
    assert sizes(448) == [4] * 3
