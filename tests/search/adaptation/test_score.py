import weakref

import numpy as np
import pytest
import torch

from search.adaptation import views
from search.adaptation.adapted import AdaptedSupernet
from search.adaptation.score import score
from search.adaptation.views import evaluation_batch
from search.elastic.supernet import untrained_supernet
from search.errors import SearchError
from search.space.architecture import SupernetSpec
from search.space.candidates import SearchSpace
from search.statistics.racing import image_order
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.errors import CancelledError
from tinytl.training.data import ImageSplit, ImageStore
from tinytl.training.train import correct_images

GROUP_NORM = "ofa_mbv3_d23_e34_k35_w0.2_gn"


def make_store(num_val):
    rng = np.random.default_rng(0)

    def split(count):
        images = rng.integers(0, 256, (count, 3, 24, 24), dtype=np.uint8)
        return ImageSplit(images, np.arange(count) % 2)

    return ImageStore({"train": split(8), "val": split(num_val), "test": split(2)}, "ab", 24)


@pytest.fixture(scope="module")
def adapted():
    generator = torch.Generator().manual_seed(0)
    spec = SupernetSpec.parse(GROUP_NORM)
    supernet = untrained_supernet(spec, 2, lite_residuals=True, generator=generator)
    return AdaptedSupernet.fresh(supernet, 2, method=Method.LITE_RESIDUAL_BIAS)


@pytest.fixture(scope="module")
def candidate(adapted):
    return SearchSpace(supernet=adapted.spec, resolutions=(16, 24)).smallest()


@pytest.fixture(scope="module")
def store():
    return make_store(320)


@pytest.fixture(scope="module")
def whole(adapted, candidate, store):
    return score(adapted, candidate, store, seed=5, horizontal_flip=False)


def right_but(wrong, store):
    """A rival that has all images right but the first few that are looked at."""
    rival = np.ones(len(store.split("val")), dtype=bool)
    rival[:wrong] = False
    return rival


def test_a_score_is_that_of_the_delivered_network(adapted, candidate, store, whole):
    config, weights = adapted.subnet_weights(candidate, store)
    network = build_network(config, adapted.method, weights)
    split = store.split("val")
    correct = correct_images(network, split, resolution=16, batch_size=7)
    assert np.array_equal(whole.correct, correct[image_order(320, 5)])
    assert whole.accuracy == pytest.approx(correct.mean())
    assert (whole.num_images, whole.is_complete) == (320, True)
    other = score(adapted, candidate, store, seed=6, horizontal_flip=False)
    assert other.accuracy == whole.accuracy
    assert not np.array_equal(other.correct, whole.correct)


def test_an_image_is_judged_together_with_its_mirror_image(adapted, candidate, store, whole):
    config, weights = adapted.subnet_weights(candidate, store)
    network = build_network(config, adapted.method, weights)
    split = store.split("val")
    images = split.batch(image_order(320, 5).tolist(), 16)
    with torch.no_grad():
        mean = (network(images).softmax(1) + network(images.flip(3)).softmax(1)) / 2
    labels = split.labels_of(image_order(320, 5).tolist())
    found = score(adapted, candidate, store, seed=5)
    assert np.array_equal(found.correct, (mean.argmax(1) == labels).numpy())
    assert found.loss == pytest.approx(torch.nn.functional.nll_loss(mean.log(), labels).item())
    assert not np.array_equal(found.correct, whole.correct)


def test_a_bad_candidate_is_given_up_early(adapted, candidate, store, whole):
    assert 0.3 < whole.accuracy < 0.7  # untrained: the rival is far ahead
    worse, better = right_but(200, store), right_but(0, store)
    raced = score(adapted, candidate, store, seed=5, horizontal_flip=False, rivals=[worse, better])
    assert not raced.is_complete
    assert raced.num_images == 64
    assert np.array_equal(raced.correct, whole.correct[:64])
    assert raced.accuracy == whole.correct[:64].mean()


def test_one_as_good_as_its_rivals_sees_all_images(adapted, candidate, store, whole):
    raced = score(adapted, candidate, store, seed=5, horizontal_flip=False, rivals=[whole.correct])
    assert raced.is_complete
    assert np.array_equal(raced.correct, whole.correct)


def test_few_images_are_never_raced(adapted, candidate):
    store = make_store(199)
    raced = score(adapted, candidate, store, rivals=[right_but(0, store)])
    assert (raced.is_complete, raced.num_images) == (True, 199)


def test_a_rival_that_saw_other_images_is_refused(adapted, candidate, store):
    with pytest.raises(SearchError, match="320 validation images but saw 64"):
        score(adapted, candidate, store, rivals=[np.ones(64, dtype=bool)])


def test_scoring_stops_when_asked(adapted, candidate, store):
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) == 3

    with pytest.raises(CancelledError):
        score(adapted, candidate, store, should_stop=should_stop)
    assert len(asked) == 3


def test_images_are_resized_once(adapted, candidate, monkeypatch):
    store = make_store(130)
    first = score(adapted, candidate, store)
    monkeypatch.setattr(store.split("val"), "batch", None)
    assert np.array_equal(score(adapted, candidate, store).correct, first.correct)


def test_what_is_kept_of_a_split_has_a_limit(monkeypatch):
    split = make_store(6).split("val")
    monkeypatch.setattr(views, "MAX_BYTES", 2 * 2 * 3 * 16 * 16)
    batches = [evaluation_batch(split, [i, i + 1], 16) for i in (0, 2, 4)]
    for start, batch in zip((0, 2, 4), batches, strict=True):
        assert torch.equal(batch, split.batch([start, start + 1], 16))
    again = [evaluation_batch(split, [i, i + 1], 16) for i in (0, 2, 4)]
    assert [old is new for old, new in zip(batches, again, strict=True)] == [True, True, False]
    assert evaluation_batch(split, [0, 1], 24).shape[2:] == (24, 24)


def test_a_gone_split_is_kept_no_longer():
    split = make_store(2).split("val")
    kept = weakref.ref(evaluation_batch(split, [0], 16))
    assert kept() is not None
    del split
    assert kept() is None
