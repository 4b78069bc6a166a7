import numpy as np
import pytest

from search.statistics.racing import ALPHA, chunk_size, image_order, is_hopeless


def images_seen(candidate, rival, alpha=ALPHA):
    """After how many images a candidate is given up, or all of them."""
    num_images = len(rival)
    chunk = chunk_size(num_images)
    seen = range(chunk, num_images, chunk)
    for count in seen:
        if is_hopeless(candidate[:count], rival, looks=len(seen), alpha=alpha):
            return count
    return num_images


def pair(num_images, wins, losses, rng):
    """A candidate and its rival, in random order: so many images either has alone."""
    candidate, rival = np.ones(num_images, dtype=bool), np.ones(num_images, dtype=bool)
    rival[:wins] = False
    candidate[wins : wins + losses] = False
    shuffled = rng.permutation(num_images)
    return candidate[shuffled], rival[shuffled]


def test_an_order_holds_every_image_once():
    first = image_order(300, 0)
    assert sorted(first.tolist()) == list(range(300))
    assert np.array_equal(first, image_order(300, 0))
    assert not np.array_equal(first, image_order(300, 1))


@pytest.mark.parametrize(
    ("num_images", "expected"), [(200, 64), (1024, 64), (1025, 65), (5000, 313)]
)
def test_chunks(num_images, expected):
    assert chunk_size(num_images) == expected


@pytest.mark.parametrize("alpha", [ALPHA, 0.2])
@pytest.mark.parametrize(("num_images", "decided"), [(250, 60), (640, 200), (640, 20)])
def test_one_as_good_as_its_rival_is_hardly_ever_given_up(num_images, decided, alpha):
    rng = np.random.default_rng(num_images + decided)
    repeats = 1500
    given_up = sum(
        images_seen(*pair(num_images, decided // 2, decided // 2, rng), alpha) < num_images
        for _ in range(repeats)
    )
    assert given_up / repeats <= alpha


@pytest.mark.parametrize("advantage", [0, 0.02])
def test_one_that_would_end_ahead_is_hardly_ever_given_up(advantage):
    rng = np.random.default_rng(4)
    repeats, alpha, ahead, wrongly = 2000, 0.1, 0, 0
    for _ in range(repeats):
        candidate, rival = rng.random(640) < 0.6 + advantage, rng.random(640) < 0.6
        if candidate.sum() >= rival.sum():
            ahead += 1
            wrongly += images_seen(candidate, rival, alpha) < 640
    assert ahead > repeats / 3
    assert wrongly / ahead <= alpha


def test_a_hopeless_one_is_given_up_early():
    rng = np.random.default_rng(0)
    seen = [images_seen(*pair(640, 20, 220, rng)) for _ in range(100)]
    assert np.mean(seen) < 640 / 5
    assert max(seen) < 640 / 2


def test_one_that_can_t_catch_up_is_given_up():
    rival = np.ones(300, dtype=bool)
    rival[250:] = False
    candidate = np.ones(299, dtype=bool)
    candidate[:49] = False  # as many as the rival, where the last one is right
    candidate[250:] = True
    assert candidate.sum() == 250
    assert not is_hopeless(candidate, rival, looks=4, alpha=0)
    candidate[49:51] = False
    assert candidate.sum() + 1 == 249
    assert is_hopeless(candidate, rival, looks=4, alpha=0)


def test_alpha_is_shared_by_the_looks():
    rival, candidate = np.ones(640, dtype=bool), np.ones(64, dtype=bool)
    candidate[:7] = False  # 7 of 7 lost: 1/128
    rival[-100:] = False  # so that catching up is possible
    assert is_hopeless(candidate, rival, looks=1, alpha=0.01)
    assert not is_hopeless(candidate, rival, looks=2, alpha=0.01)
