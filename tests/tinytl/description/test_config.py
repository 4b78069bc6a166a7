"""Geometry of convolutions, and what a network may be given."""

from dataclasses import replace

import pytest

from tinytl.description.config import (
    IMAGENET,
    Normalization,
    check_network,
    conv_pads,
    with_lite_residuals,
    without_lite_residuals,
)
from tinytl.errors import ConfigError


@pytest.mark.parametrize(
    ("kernel_size", "stride", "size", "expected"),
    [
        (3, 2, 224, (0, 1)),
        (3, 2, 225, (1, 1)),
        (5, 2, 56, (1, 2)),
        (5, 2, 57, (2, 2)),
        (7, 2, 10, (2, 3)),
        (5, 1, 14, (2, 2)),
        (1, 2, 8, (0, 0)),
        (3, 2, 2, (0, 1)),
        (5, 2, 1, (2, 2)),
    ],
)
def test_same_padding(kernel_size, stride, size, expected):
    """max((ceil(size / stride) - 1) * stride + kernel - size, 0), the smaller half before."""
    assert conv_pads("same", kernel_size, stride, size) == expected
    assert conv_pads("symmetric", kernel_size, stride, size) == (kernel_size // 2,) * 2


def test_copies_keep_padding_and_normalization(lite0):
    network = lite0()
    assert (network.padding, network.normalization) != ("symmetric", IMAGENET)
    for copy in (with_lite_residuals(network), without_lite_residuals(network)):
        assert (copy.padding, copy.normalization) == (network.padding, network.normalization)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": "valid"}, "padding must be one of .* but got 'valid'"),
        ({"normalization": Normalization(mean=(0.5, 0.5), std=(1, 1, 1))}, "mean must be 3"),
        ({"normalization": Normalization(mean=(0, 0, "a"), std=(1, 1, 1))}, "'a'"),
        ({"normalization": Normalization(mean=(0, 0, 0), std=(1, 1, 0))}, "std must be above 0"),
        ({"normalization": Normalization(mean=(0, 0, 0), std=(1, 1, float("nan")))}, "nan"),
    ],
)
def test_what_no_network_can_have_is_refused(small_network, change, message):
    with pytest.raises(ConfigError, match=message):
        check_network(replace(small_network(), **change))
