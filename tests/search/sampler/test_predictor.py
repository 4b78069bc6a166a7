import numpy as np
import pytest

from search.sampler.kernel import Columns
from search.sampler.predictor import Features, Predictor


def made_up(count, seed):
    """Candidates of ten choices, whose accuracy adds up from them and grows with a size."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(2, size=(count, 10)).astype(float)
    sizes = np.log(1 + choices.sum(axis=1) + rng.random(count))[:, None]
    effects = np.linspace(-0.03, 0.05, 10)
    accuracies = 0.5 + choices @ effects + 0.1 * np.tanh(sizes[:, 0] - 1.5)
    return Features(choices=choices, sizes=sizes), accuracies


def test_predicts_unseen_candidates():
    features, accuracies = made_up(60, 0)
    unseen, truth = made_up(200, 1)
    predictor = Predictor(features, accuracies, np.ones(60), None)
    beliefs = predictor.beliefs(unseen)
    means, deviations = beliefs.means, beliefs.deviations()
    assert np.std(means - truth) < 0.1 * np.std(truth)
    assert np.allclose(means, predictor.means(unseen))
    within = np.abs(means - truth) < 3 * deviations + 0.005
    assert within.mean() > 0.9


def test_is_surer_of_what_it_has_seen():
    features, accuracies = made_up(20, 0)
    far = Features(choices=1 - features.choices, sizes=features.sizes + 3)
    predictor = Predictor(features, accuracies, np.ones(20), None)
    unsure, sure = (predictor.beliefs(each).deviations() for each in (far, features))
    assert unsure.min() > sure.max()


def test_noisy_scores_count_less():
    features, accuracies = made_up(40, 0)
    spoilt = accuracies.copy()
    spoilt[0] += 0.3
    first = Features(choices=features.choices[:1], sizes=features.sizes[:1])
    scales = Predictor(features, accuracies + 0.01 * np.sin(range(40)), np.ones(40), None).scales
    errors = [
        abs(
            Predictor(features, spoilt, np.where(np.arange(40) == 0, noise, 1.0), scales).means(
                first
            )[0]
            - accuracies[0]
        )
        for noise in (1.0, 1e6)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_equal_accuracies_and_sizes():
    features = Features(choices=np.eye(4), sizes=np.ones((4, 1)))
    beliefs = Predictor(features, np.full(4, 0.25), np.ones(4), None).beliefs(features)
    assert beliefs.means == pytest.approx(0.25)
    assert (beliefs.deviations() > 0).all()


def test_pending_candidates_count_as_scored():
    features, accuracies = made_up(30, 0)
    unseen, _ = made_up(50, 1)
    beliefs = Predictor(features, accuracies, np.ones(30), None).beliefs(unseen)
    one, all_of_them = (
        beliefs.deviations(Features(choices=unseen.choices[:n], sizes=unseen.sizes[:n]))
        for n in (1, 50)
    )
    assert (one < beliefs.deviations()).all()
    assert (all_of_them < one).all()
    assert one[0] == pytest.approx(all_of_them[0], rel=0.5)  # itself known, the others tell little
    assert all_of_them[1] < 0.8 * one[1]


def test_predicts_what_choices_do_to_each_other():
    rng = np.random.default_rng(0)
    choices = rng.integers(2, size=(160, 6)).astype(float)
    features = Features(choices=choices, sizes=rng.random((160, 1)))
    accuracies = 0.5 + 0.1 * (choices[:, 0] == choices[:, 1])
    seen, unseen = (
        Features(choices=features.choices[part], sizes=features.sizes[part])
        for part in (slice(120), slice(120, 160))
    )
    means = Predictor(seen, accuracies[:120], np.ones(120), None).means(unseen)
    assert np.corrcoef(means, accuracies[120:])[0, 1] > 0.9


def test_relatives_expect_like_effects_of_each_other():
    """Of a choice that was never varied, from those of its family and not from others."""
    rng = np.random.default_rng(0)
    choices = rng.integers(2, size=(60, 12)).astype(float)
    choices[:, [5, 11]] = 0
    columns = Columns(
        families=np.repeat([0, 1], 6),
        places=np.tile(np.arange(6), 2),
        steps=np.ones(12, dtype=int),
    )
    accuracies = 0.5 + 0.03 * choices[:, :6].sum(axis=1) - 0.03 * choices[:, 6:].sum(axis=1)

    def features(rows):
        return Features(choices=rows, sizes=np.zeros((len(rows), 1)), columns=columns)

    predictor = Predictor(features(choices), accuracies, np.ones(60), None)
    none, one, other = predictor.means(features(np.eye(13, 12, -1)[[0, 6, 12]]))
    assert none == pytest.approx(0.5, abs=0.01)
    assert one - none > 0.01
    assert other - none < -0.01


def test_hopes_exceed_means_where_choices_are_unlike_all_scored():
    features, accuracies = made_up(40, 0)
    features.choices[:, 9] = 0
    predictor = Predictor(features, accuracies, np.ones(40), None)
    changed = features.choices[:5].copy()
    changed[:, 9] = 1
    unlike, like = (
        Features(choices=choices, sizes=features.sizes[:5])
        for choices in (changed, features.choices[:5])
    )
    margins = [predictor.hopes(each, 1.0) - predictor.means(each) for each in (unlike, like)]
    assert (margins[1] >= 0).all()
    assert margins[0].min() > margins[1].max()
