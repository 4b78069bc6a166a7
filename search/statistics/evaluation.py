"""How well a network tells each class, from its probabilities on labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """support: images of the class. recall: share of these that are told to be of it; precision:
    share of those told to be of it that are; each None where that is a share of none."""

    support: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """balanced_accuracy: mean recall of the classes that have images. confusion: images by label
    (row) and by what they were told to be (column)."""

    num_images: int
    accuracy: float
    balanced_accuracy: float
    classes: tuple[ClassScores, ...]
    confusion: NDArray[np.int64]


def evaluate_classes(labels: NDArray[Any], probabilities: NDArray[np.float32]) -> Evaluation:
    """labels: (N,), N > 0; probabilities: (N, classes)."""
    num_classes, told = probabilities.shape[1], probabilities.argmax(1)
    cells = np.bincount(labels * num_classes + told, minlength=num_classes**2)
    confusion = cells.reshape(num_classes, num_classes)
    support, num_told, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    classes = tuple(
        ClassScores(
            support=int(support[label]),
            recall=_share(right[label], support[label]),
            precision=_share(right[label], num_told[label]),
        )
        for label in range(num_classes)
    )
    return Evaluation(
        num_images=len(labels),
        accuracy=float(right.sum() / len(labels)),
        balanced_accuracy=float((right[support > 0] / support[support > 0]).mean()),
        classes=classes,
        confusion=confusion,
    )


def most_confidently_wrong(
    labels: NDArray[Any], probabilities: NDArray[np.float32], most: int
) -> list[int]:
    """Images that are told to be of another class, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities.max(1)[wrong], kind="stable")
    return [int(index) for index in wrong[order][:most]]


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
