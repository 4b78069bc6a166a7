import numpy as np
import pytest

from search.statistics.evaluation import evaluate_classes, most_confidently_wrong


def probabilities(*rows):
    return np.array(rows, dtype=np.float32)


def test_each_class_is_judged_alone():
    """95 of 100 right, yet one of the five rare images found."""
    labels = np.array([0] * 95 + [1] * 5)
    told = np.array([0] * 94 + [1] + [0] * 4 + [1])
    found = evaluate_classes(labels, np.eye(3, dtype=np.float32)[told])
    assert found.accuracy == 0.95
    assert found.balanced_accuracy == pytest.approx((94 / 95 + 1 / 5) / 2)
    common, rare, absent = found.classes
    assert (common.support, rare.support, absent.support) == (95, 5, 0)
    assert rare.recall == 0.2
    assert rare.precision == 0.5
    assert common.precision == pytest.approx(94 / 98)
    assert absent.recall is None
    assert absent.precision is None
    assert found.confusion.tolist() == [[94, 1, 0], [4, 1, 0], [0, 0, 0]]


def test_the_surest_mistakes_come_first():
    seen = probabilities([0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7])
    labels = np.array([0, 0, 0, 1])
    assert most_confidently_wrong(labels, seen, 5) == [2, 1]
    assert most_confidently_wrong(labels, seen, 1) == [2]
