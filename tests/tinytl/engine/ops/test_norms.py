"""Norms against numerical gradients and torch's own."""

import pytest
import torch
import torch.nn.functional as F

from tinytl.engine.ops.norms import (
    frozen_norm_,
    frozen_norm_backward_,
    group_norm,
    group_norm_backward,
)


def _random(seed):
    return torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


@pytest.mark.parametrize("shape", [(2, 8, 5, 5), (1, 8, 4, 6), (2, 8, 1, 1)], ids=str)
def test_group_norm(check_gradients, random_map, shape):
    """Also on a channels-last map of one image, where torch 2.13's backward is fragile."""

    def forward(x, gain, bias):
        y, _ = group_norm(x, gain, bias, 2, 1e-3)
        torch.testing.assert_close(y, F.group_norm(x, 2, gain, bias, 1e-3))
        return y

    def backward(grad, x, gain, bias):
        _, statistics = group_norm(x, gain, bias, 2, 1e-3)
        return group_norm_backward(grad, x, gain, statistics)

    check_gradients(forward, backward, random_map(*shape), _random(2), _random(3))


def test_a_batch_norm_with_fixed_statistics(check_gradients, random_map):
    mean, inv_std = _random(4), _random(5)

    def forward(x, gain, bias):
        expected = F.batch_norm(x, mean, inv_std**-2, gain, bias, eps=0)
        y = frozen_norm_(x, gain, bias, (mean, inv_std))
        assert y is x
        torch.testing.assert_close(y, expected)
        return y

    def backward(grad, x, gain, bias):
        return frozen_norm_backward_(grad, x, gain, (mean, inv_std))

    check_gradients(forward, backward, random_map(2, 8, 5, 3), _random(2), _random(3))
