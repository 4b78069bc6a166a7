"""How well a delivered network tells each class, as users read it."""

from __future__ import annotations

from collections.abc import Sequence

from service.contract.described import Described

_FEW_IMAGES = 10
_UNEVEN_RATIO = 3
_FAR_BELOW = 0.1
_UNEVEN = 0.02
_MOST_NAMED = 3


class ClassView(Described):
    """One class on the test images."""

    name: str
    support: int
    """Images of it."""
    recall: float | None
    """Share of these that were told to be of it; null where there are none."""
    precision: float | None
    """Share of those told to be of it that are; null where none was."""


class MistakeView(Described):
    """A test image that was told to be of another class."""

    label: str
    predicted: str
    probability: float
    """Of the predicted class."""
    image: str
    """As the network saw it, but small: a data URL, or in a bundle the name of an entry."""


class EvaluationView(Described):
    """How well the delivered network tells each class of the test images."""

    headline: str
    """The result in a sentence that does not hide small classes."""
    headline_accuracy: float
    """The accuracy or, where that would hide small classes, the balanced one."""
    num_images: int
    accuracy: float
    balanced_accuracy: float
    """Mean recall of the classes that have test images."""
    classes: list[ClassView]
    confusion: list[list[int]] | None
    """Images by label (row) and predicted class (column), in the order of `classes`; null where
    these are more than 200."""
    mistakes: list[MistakeView]
    """The most confident ones, the surest first."""


class ClassProbability(Described):
    name: str
    probability: float


class PredictionView(Described):
    """What a network makes of an image."""

    label: str
    """The most likely class."""
    probabilities: list[ClassProbability]
    """Of every class, the most likely first."""


def headline_accuracy(accuracy: float, balanced_accuracy: float) -> float:
    return balanced_accuracy if balanced_accuracy < accuracy - _UNEVEN else accuracy


def make_headline(accuracy: float, balanced_accuracy: float, classes: Sequence[ClassView]) -> str:
    """Accuracy alone, where classes are alike; else with what it hides."""
    present = [found for found in classes if found.support]
    num_images = sum(found.support for found in present)
    text = f"{accuracy:.1%} of {num_images} test images are right"
    weak = sorted(
        (found for found in present if (found.recall or 0) < accuracy - _FAR_BELOW),
        key=lambda found: found.recall or 0,
    )
    supports = [found.support for found in present]
    if weak or max(supports) >= _UNEVEN_RATIO * min(supports):
        hides = balanced_accuracy < accuracy - _UNEVEN
        text += (
            f", {'but' if hides else 'and'} {balanced_accuracy:.1%} with every class counted alike"
        )
    if weak:
        named = ", ".join(map(_found_of, weak[:_MOST_NAMED]))
        more = f" and {len(weak) - _MOST_NAMED} more" if len(weak) > _MOST_NAMED else ""
        text += f": only {named}{more} are found"
    few = [found for found in present if found.support < _FEW_IMAGES]
    if few:
        text += f". {_few_text(few)}"
    return f"{text}."


def _found_of(found: ClassView) -> str:
    right = round((found.recall or 0) * found.support)
    return f"{right} of {found.support} of {found.name!r}"


def _few_text(few: Sequence[ClassView]) -> str:
    if len(few) == 1:
        images = f"{few[0].support} test image{'s' if few[0].support > 1 else ''}"
        return f"{few[0].name!r} has {images}: too few to be sure of it"
    return (
        f"{len(few)} classes have fewer than {_FEW_IMAGES} test images: too few to be sure of them"
    )
