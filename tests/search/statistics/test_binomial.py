import pytest

from search.statistics.binomial import standard_error


def test_no_accuracy_of_few_images_is_certain():
    assert 0.05 < standard_error(1.0, 12) == standard_error(0.0, 12) < 0.1


def test_of_many_images_it_is_the_binomials():
    assert standard_error(0.6, 10_000) == pytest.approx((0.6 * 0.4 / 10_000) ** 0.5, rel=0.01)
