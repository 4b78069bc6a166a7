"""A peer: logistic regression on frozen features, as a user writes it with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tinytl.training.data import Split

_MOST_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Images:
    """What is known of the images of a dataset, in one order.

    features: float32 (N, 1280) by resolution. labels: int (N,). splits: of each image.
    """

    features: Mapping[int, np.ndarray]
    labels: np.ndarray
    splits: Sequence[Split]

    def chosen(self, resolution: int, *splits: Split) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels of the images of these splits."""
        mask = np.isin(self.splits, splits)
        return self.features[resolution][mask], self.labels[mask]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A resolution and an inverse strength C of the penalty, fitted to the training images.

    Judged by validation images: accuracy from 0 to 1, cross-entropy in nats.
    """

    resolution: int
    inverse_penalty: float
    accuracy: float
    loss: float


def tried(
    images: Images, resolutions: Sequence[int], inverse_penalties: Sequence[float]
) -> list[Tried]:
    """Every pair of them."""
    found = []
    for resolution in resolutions:
        features, labels = images.chosen(resolution, "train")
        val_features, val_labels = images.chosen(resolution, "val")
        for inverse_penalty in inverse_penalties:
            model = _fitted(inverse_penalty, features, labels)
            probabilities = model.predict_proba(val_features)
            found.append(
                Tried(
                    resolution=resolution,
                    inverse_penalty=inverse_penalty,
                    accuracy=float(model.score(val_features, val_labels)),
                    loss=float(log_loss(val_labels, probabilities, labels=model.classes_)),
                )
            )
    return found


def best_of(found: Sequence[Tried]) -> Tried:
    """The most accurate; of equally accurate ones that of the least loss."""
    return max(found, key=lambda each: (each.accuracy, -each.loss))


def refitted_accuracy(images: Images, chosen: Tried) -> float:
    """Test accuracy of the chosen pair, fitted again with the validation images among them."""
    model = _fitted(chosen.inverse_penalty, *images.chosen(chosen.resolution, "train", "val"))
    return float(model.score(*images.chosen(chosen.resolution, "test")))


def _fitted(inverse_penalty: float, features: np.ndarray, labels: np.ndarray) -> Any:
    """scikit-learn's pipeline, standardized by these features."""
    regression = LogisticRegression(C=inverse_penalty, max_iter=_MOST_ITERATIONS)
    return make_pipeline(StandardScaler(), regression).fit(features.astype(np.float64), labels)
