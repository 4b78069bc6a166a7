"""The evaluation of a job's delivered network: class by class, with pictures of mistakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.statistics.evaluation import evaluate_classes, most_confidently_wrong
from service.views.evaluation import (
    ClassView,
    EvaluationView,
    MistakeView,
    headline_accuracy,
    make_headline,
)
from tinytl.training.data import ImageSplit

_MOST_MISTAKES = 12
_MOST_IN_MATRIX = 200
_PICTURE_SIDE = 96
_QUALITY = 85
_DATA_URL = "data:image/jpeg;base64,"

Pictures = dict[str, bytes]
"""By the names that they have in a bundle."""


def evaluate(
    split: ImageSplit, classes: Sequence[str], probabilities: NDArray[np.float32]
) -> tuple[EvaluationView, Pictures]:
    """probabilities: (N, classes), of the whole split. The mistakes' images are names."""
    found = evaluate_classes(split.labels, probabilities)
    views = [
        ClassView(name=name, support=c.support, recall=c.recall, precision=c.precision)
        for name, c in zip(classes, found.classes, strict=True)
    ]
    wrong = most_confidently_wrong(split.labels, probabilities, _MOST_MISTAKES)
    names = {index: f"mistakes/{place:02}.jpg" for place, index in enumerate(wrong, 1)}
    mistakes = [
        MistakeView(
            label=classes[int(split.labels[index])],
            predicted=classes[int(probabilities[index].argmax())],
            probability=round(float(probabilities[index].max()), 4),
            image=names[index],
        )
        for index in wrong
    ]
    view = EvaluationView(
        headline=make_headline(found.accuracy, found.balanced_accuracy, views),
        headline_accuracy=headline_accuracy(found.accuracy, found.balanced_accuracy),
        num_images=found.num_images,
        accuracy=found.accuracy,
        balanced_accuracy=found.balanced_accuracy,
        classes=views,
        confusion=found.confusion.tolist() if len(views) <= _MOST_IN_MATRIX else None,
        mistakes=mistakes,
    )
    return view, {name: _picture(split, index) for index, name in names.items()}


def with_pictures(view: EvaluationView, pictures: Pictures) -> dict[str, Any]:
    """As JSON, whose mistakes hold their pictures."""
    shown = view.model_dump(mode="json")
    for mistake in shown["mistakes"]:
        mistake["image"] = _DATA_URL + base64.b64encode(pictures[mistake["image"]]).decode()
    return shown


def _picture(split: ImageSplit, index: int) -> bytes:
    pixels = split.batch([index], _PICTURE_SIDE)[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
