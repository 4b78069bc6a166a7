import numpy as np
import pytest

from search.sampler.front import Staircase, expected_excess, front_of


def test_front_of():
    peaks = [5, 3, 4, 3, 8, 6]
    accuracies = [0.5, 0.4, 0.3, 0.4, 0.9, 0.5]
    assert front_of(peaks, accuracies).tolist() == [1, 0, 4]
    assert front_of([], []).tolist() == []


def test_hypervolume_by_hand():
    stairs = Staircase([2, 4, 9, 3], [0.5, 0.8, 0.9, 0.1], limit_bytes=8, chance=0.2)
    assert stairs.hypervolume() == pytest.approx(2 * 0.3 + 4 * 0.6)
    assert Staircase([], [], limit_bytes=8, chance=0.2).hypervolume() == 0


def test_expected_growth_is_the_mean_of_the_growth():
    rng = np.random.default_rng(0)
    peaks, accuracies = rng.uniform(1, 9, 6), rng.uniform(0.3, 0.8, 6)

    def stairs(more_peaks=(), more_accuracies=()):
        return Staircase(
            np.append(peaks, more_peaks),
            np.append(accuracies, more_accuracies),
            limit_bytes=10,
            chance=0.1,
        )

    for peak, mean, deviation in ((0.5, 0.4, 0.1), (4.0, 0.7, 0.05), (9.9, 0.9, 0.2)):
        draws = np.maximum(rng.normal(mean, deviation, 4000), 0)
        grown = [stairs([peak], [draw]).hypervolume() for draw in draws]
        simulated = np.mean(grown) - stairs().hypervolume()
        grows = stairs().growth(np.array([peak]), draws[:1])
        assert grows[0] == pytest.approx(grown[0] - stairs().hypervolume())
        found = stairs().expected_growth(np.array([peak]), np.array([mean]), np.array([deviation]))
        assert found[0] == pytest.approx(simulated, rel=0.06, abs=0.01)


def test_nothing_grows_above_the_limit():
    stairs = Staircase([2], [0.5], limit_bytes=8, chance=0.2)
    found = stairs.expected_growth(np.array([8.0, 20.0]), np.array([0.9, 0.9]), np.full(2, 0.1))
    assert found.tolist() == [0, 0]


def test_expected_excess():
    found = expected_excess(np.array([0.5, 0.5]), np.array([1e-9, 0.1]), 0.4)
    assert found[0] == pytest.approx(0.1)
    assert found[1] > 0.1
