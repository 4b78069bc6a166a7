import numpy as np
import pytest
from scipy.stats import binomtest

from search.statistics.binomial import standard_error
from search.statistics.certainty import Gain, choice_certainty, mcnemar, paired_gain, sign_test


def pair(both, ours_alone, theirs_alone, neither):
    """Two networks that have so many images right together, alone, and not at all."""
    ours = [True] * both + [True] * ours_alone + [False] * (theirs_alone + neither)
    theirs = [True] * both + [False] * ours_alone + [True] * theirs_alone + [False] * neither
    return np.array(ours), np.array(theirs)


def test_a_gain_by_hand():
    gain = paired_gain(*pair(70, 12, 4, 14))
    assert gain.points == pytest.approx(0.08)
    # of 102 differences 12.5 are 1, 4.5 are -1
    assert gain.standard_error == pytest.approx(np.sqrt((17 / 102 - (8 / 102) ** 2) / 102))
    # 2 * sum(comb(16, k) for k in range(12, 17)) / 2**16 = 2 * 2517 / 65536
    assert mcnemar(*pair(70, 12, 4, 14)) == pytest.approx(5034 / 65536)
    assert gain.is_within_noise
    assert not paired_gain(*pair(70, 13, 3, 14)).is_within_noise
    assert not paired_gain(*pair(70, 3, 13, 14)).is_within_noise


def test_no_difference_is_within_noise():
    same = pair(9, 0, 0, 1)
    error = pytest.approx(1 / 12)  # half an image more each way
    assert paired_gain(*same) == Gain(points=0.0, standard_error=error, is_within_noise=True)
    assert mcnemar(*same) == 1
    assert mcnemar(*pair(1, 5, 5, 1)) == 1


@pytest.mark.parametrize(("lost", "decided"), [(0, 0), (0, 7), (1, 1), (5, 7), (400, 700)])
def test_the_sign_test_is_exact(lost, decided):
    expected = binomtest(lost, decided, alternative="greater").pvalue if decided else 1
    assert sign_test(lost, decided) == pytest.approx(expected, rel=1e-9)


def test_one_that_is_better_on_every_image_is_the_best():
    correct = np.zeros((3, 50), dtype=bool)
    correct[1] = True
    choice = choice_certainty(correct, 1, seed=0)
    assert (choice.num_compared, choice.probability_best, choice.num_rivals) == (3, 1, 0)
    assert choice.standard_error == standard_error(1.0, 50)
    assert choice_certainty(correct, 0, seed=0).probability_best == 0
    assert choice_certainty(correct, 0, seed=0).num_rivals == 2  # the better one, and its like


def test_those_that_tie_share():
    correct = np.tile(np.arange(40) % 2 == 0, (4, 1))
    choice = choice_certainty(correct, 2, seed=0)
    assert choice.probability_best == pytest.approx(1 / 4)
    assert choice.num_rivals == 3
    assert choice.standard_error == pytest.approx(np.sqrt(0.25 / 44))


def test_a_lead_of_one_image_is_no_certainty():
    rng = np.random.default_rng(1)
    correct = rng.random((2, 400)) < 0.6
    correct[0], correct[1] = np.sort(correct[0]), np.sort(correct[1])[::-1]
    chosen = int(correct.sum(1).argmax())
    choice = choice_certainty(correct, chosen, seed=3)
    ours, theirs = correct[chosen], correct[1 - chosen]
    lead = paired_gain(ours, theirs)
    # the normal approximation of the bootstrap of the paired difference
    normal = 0.5 * (1 + np.tanh(0.8 * lead.points / lead.standard_error))
    assert choice.probability_best == pytest.approx(normal, abs=0.05)
    assert choice.num_rivals == int(lead.is_within_noise)
    assert choice == choice_certainty(correct, chosen, seed=3)


def test_a_single_candidate_is_the_best():
    choice = choice_certainty(np.array([[True, False]]), 0, seed=0)
    assert (choice.probability_best, choice.num_rivals) == (1, 0)
