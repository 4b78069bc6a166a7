import numpy as np
import pytest

from tinytl.description.class_weights import balanced_order, is_balanced
from tinytl.errors import TinyTLError
from tinytl.training.train import TrainSettings

UNEVEN = np.array([0] * 30 + [2] * 10 + [3] * 3)


def test_every_class_gets_as_many_turns():
    order = balanced_order(UNEVEN, np.random.default_rng(0))
    assert len(order) == 43
    assert sorted(np.bincount(UNEVEN[order])) == [0, 14, 14, 15]
    often = order[UNEVEN[order] == 0]
    assert len(set(often.tolist())) == len(often)  # of many images none comes twice
    rare = np.bincount(order, minlength=43)[40:]
    assert rare.max() - rare.min() <= 1  # of few none is passed over


def test_epochs_look_at_different_images_of_a_large_class():
    first, second = (balanced_order(UNEVEN, np.random.default_rng([0, e])) for e in (0, 1))
    again = balanced_order(UNEVEN, np.random.default_rng([0, 0]))
    assert first.tolist() == again.tolist()
    assert set(first[UNEVEN[first] == 0]) != set(second[UNEVEN[second] == 0])


@pytest.mark.parametrize(
    ("setting", "labels", "expected"),
    [
        ("auto", [0] * 29 + [1] * 10, False),
        ("auto", [0] * 30 + [1] * 10, True),
        ("auto", [0] * 5 + [2] * 5, False),  # of class 1 there are none
        ("balanced", [0] * 5 + [1] * 5, True),
        ("none", [0] * 50 + [1] * 5, False),
    ],
)
def test_uneven_classes_are_balanced_by_default(setting, labels, expected):
    assert is_balanced(setting, np.array(labels)) is expected


def test_more_classes_than_images():
    order = balanced_order(np.array([4, 7]), np.random.default_rng(0))
    assert sorted(order) == [0, 1]


def test_unknown_weights_are_refused():
    with pytest.raises(TinyTLError, match="one of auto, balanced, none but got 'some'"):
        TrainSettings(class_weights="some")
