import numpy as np
import pytest

from search.predictor import Features, Predictor


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
    means, deviations = predictor.predict(unseen)
    assert np.std(means - truth) < 0.1 * np.std(truth)
    assert np.allclose(means, predictor.means(unseen))
    within = np.abs(means - truth) < 3 * deviations + 0.005
    assert within.mean() > 0.9


def test_is_surer_of_what_it_has_seen():
    features, accuracies = made_up(20, 0)
    far = Features(choices=1 - features.choices, sizes=features.sizes + 3)
    predictor = Predictor(features, accuracies, np.ones(20), None)
    assert predictor.predict(far).deviations.min() > predictor.predict(features).deviations.max()


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
        for noise in (1.0, 1000.0)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_equal_accuracies_and_sizes():
    features = Features(choices=np.eye(4), sizes=np.ones((4, 1)))
    means, deviations = Predictor(features, np.full(4, 0.25), np.ones(4), None).predict(features)
    assert means == pytest.approx(0.25)
    assert (deviations > 0).all()
