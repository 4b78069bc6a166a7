"""Ridge regression of the classes on a network's features: a head that no steps have to find."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""As multiples of the features' mean variance along an image."""

_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Of the regression's outputs, which are near 0 and 1, as logits."""

_LABEL_SMOOTHING = 0.1
"""As trainings have by default: logits that fit it are a good start for one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeHead:
    """A linear classifier. weight: (classes, F); bias: (classes,). left_out: the logits
    (N, classes) that each image would get if the head had been fitted to all others."""

    weight: Tensor
    bias: Tensor
    left_out: Tensor


def fit_ridge(features: Tensor, labels: Tensor, num_classes: int) -> RidgeHead:
    """The head with the penalty of the least loss, on images that are left out.

    features (N, F) are standardized; the indicators of labels (N,) are regressed on them with an
    intercept. With the hat matrix H = X (X^T X + p I)^-1 X^T + 1 / N, the residual of an image
    that is left out is (y - H y) / (1 - h) (Allen's PRESS), so one decomposition does for all: of
    X X^T or X^T X, whichever is smaller. What is no number, of a network that has diverged, tells
    nothing: it counts as 0.
    """
    features = features.double().nan_to_num(0.0, 0.0, 0.0)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    x = (features - mean) / deviation
    indicators = F.one_hot(labels, num_classes).double()
    shares = indicators.mean(0)
    values, vectors = _left_singular(x)
    turned = vectors.T @ (indicators - shares)
    best_loss, best_penalty, scale, best_told = math.inf, 1.0, 1.0, indicators
    for penalty in _PENALTIES:
        shrunk = values / (values + penalty)
        fitted = vectors @ (shrunk[:, None] * turned) + shares
        leverage = (vectors.square() @ shrunk + 1 / len(labels)).clamp_max(1 - 1e-9)
        told = indicators - (indicators - fitted) / (1 - leverage)[:, None]
        losses = {_loss(factor * told, labels): factor for factor in _SCALES}
        if min(losses) < best_loss:
            best_loss, best_penalty, best_told = min(losses), penalty, told
            scale = losses[best_loss]
    dual = vectors @ (turned / (values + best_penalty)[:, None])
    weight = (x.T @ dual / x.shape[1] / deviation[:, None]).T
    return RidgeHead(
        weight=(scale * weight).float(),
        bias=(scale * (shares - weight @ mean)).float(),
        left_out=(scale * best_told).float(),
    )


def _left_singular(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of x (N, F): squared singular values over F, and the left singular vectors (N, N or F)."""
    if x.shape[0] <= x.shape[1]:
        values, vectors = torch.linalg.eigh(x @ x.T / x.shape[1])
        return values.clamp_min(0), vectors
    values, right = torch.linalg.eigh(x.T @ x / x.shape[1])
    values = values.clamp_min(1e-12)
    return values, x @ right / (values * x.shape[1]).sqrt()


def _loss(logits: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(logits, labels, label_smoothing=_LABEL_SMOOTHING))
