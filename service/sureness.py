"""How sure an accuracy is, and in a sentence or two a result."""

from __future__ import annotations

import math

from service.results import ChoiceView, GainView


def standard_error(accuracy: float, num_images: int | None) -> float | None:
    """Of an accuracy that was found on so many images, roughly; None where their number is not
    known.

    The binomial's, with two images more of either kind: no accuracy of few images is certain
    (Agresti and Coull, The American Statistician 52, 1998).
    """
    if num_images is None:
        return None
    num = num_images + 4
    share = (accuracy * num_images + 2) / num
    return math.sqrt(share * (1 - share) / num)


def gain_text(gain: GainView, num_images: int | None = None) -> str:
    """Whether training beyond the head was worth it; num_images: those of the test, if known."""
    images = "the test images" if num_images is None else f"the {num_images} test images"
    found = (
        f"The gain over head-only training is {100 * gain.points:+.1f} points on {images}, with "
        f"a standard error of {100 * gain.standard_error:.1f}"
    )
    if gain.is_within_noise:
        return f"{found}: that is within noise, there may be none."
    return f"{found}."


def choice_text(choice: ChoiceView, num_scored: int) -> str:
    """How far the validation images tell the chosen candidate from the others."""
    rivals = {
        0: "None of the others comes as near as noise",
        1: "One other may be as good",
    }.get(choice.num_rivals, f"{choice.num_rivals} others may be as good")
    return (
        f"Of {num_scored} scored candidates the chosen one is the best with a probability of "
        f"{choice.probability_best:.0%}, as far as the validation images tell. {rivals}."
    )
