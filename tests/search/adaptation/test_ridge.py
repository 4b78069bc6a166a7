"""The ridge head: leave-one-out by formula against by hand; what it predicts on other images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.adaptation import ridge as module
from search.adaptation.ridge import RidgeHead, fit_ridge


def by_hand(features: torch.Tensor, labels: torch.Tensor, penalty: float) -> np.ndarray:
    """Ridge regression fitted anew without each image; means and scales are of all images, as
    the formula's."""
    x = features.double()
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    y = torch.nn.functional.one_hot(labels).double()
    scale = penalty * x.shape[1]
    correct = []
    for left_out in range(len(labels)):
        rest = [index for index in range(len(labels)) if index != left_out]
        mean_x, mean_y = x[rest].mean(0), y[rest].mean(0)
        a = x[rest] - mean_x
        weight = torch.linalg.solve(
            a.T @ a + scale * torch.eye(x.shape[1], dtype=torch.float64), a.T @ (y[rest] - mean_y)
        )
        told = (x[left_out] - mean_x) @ weight + mean_y
        correct.append(int(told.argmax()) == int(labels[left_out]))
    return np.array(correct)


def right(head: RidgeHead, labels: torch.Tensor) -> np.ndarray:
    """Which images are told right by all others."""
    return (head.left_out.argmax(1) == labels).numpy()


@pytest.mark.parametrize("num_features", [12, 50])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_formula_leaves_out_each_image(
    monkeypatch: pytest.MonkeyPatch, penalty: float, num_features: int
) -> None:
    """Of more images than features, and of fewer."""
    monkeypatch.setattr(module, "_PENALTIES", (penalty,))
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(40) % 4
    features = torch.randn(40, num_features, generator=generator)
    features[:, :4] += 1.5 * torch.nn.functional.one_hot(labels)
    found = right(fit_ridge(features, labels, 4), labels)
    assert 0.2 < found.mean() < 0.95
    assert np.array_equal(found, by_hand(features, labels, penalty))


def test_features_that_tell_nothing_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(300) % 3
    found = right(fit_ridge(torch.randn(300, 50, generator=generator), labels, 3), labels)
    assert found.mean() < 0.45


def test_more_features_than_images_are_told_apart() -> None:
    labels = torch.arange(20) % 2
    features = torch.randn(20, 200, generator=torch.Generator().manual_seed(3))
    features[:, 0] = 40.0 * labels
    features[:, 1:50] += 2 * labels[:, None]
    assert right(fit_ridge(features, labels, 2), labels).mean() > 0.9


def test_the_head_tells_what_was_fitted_and_its_logits_are_a_start_for_training() -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(200) % 5
    features = torch.randn(200, 30, generator=generator)
    features[:, :5] += 4 * torch.nn.functional.one_hot(labels)
    head = fit_ridge(features, labels, 5)
    fresh = torch.randn(200, 30, generator=generator)
    fresh[:, :5] += 4 * torch.nn.functional.one_hot(labels)
    logits = fresh @ head.weight.T + head.bias
    assert (logits.argmax(1) == labels).float().mean() == pytest.approx(
        right(head, labels).mean(), abs=0.06
    )
    losses = [
        float(torch.nn.functional.cross_entropy(factor * logits, labels, label_smoothing=0.1))
        for factor in (0.25, 1, 4)
    ]
    assert losses[1] < 0.9 * min(losses[0], losses[2])


def test_features_that_are_no_numbers_tell_nothing() -> None:
    labels = torch.arange(30) % 3
    head = fit_ridge(torch.full((30, 8), torch.nan), labels, 3)
    assert head.weight.isfinite().all()
    assert head.bias.isfinite().all()
    assert right(head, labels).mean() < 0.5
