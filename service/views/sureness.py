"""How sure a result is, in a sentence or two."""

from __future__ import annotations

from service.views.results import ChoiceView, GainView


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


def choice_text(choice: ChoiceView) -> str:
    """How far the validation images tell the chosen candidate from the others."""
    if choice.num_compared == 1:
        return "The chosen candidate is the only one within the limits that was scored to the end."
    compared = "the" if choice.num_compared is None else choice.num_compared
    rivals = {
        0: "None of the others comes as near as noise",
        1: "One other may be as good",
    }.get(choice.num_rivals, f"{choice.num_rivals} others may be as good")
    return (
        f"Of {compared} candidates within the limits that were scored to the end, the chosen one "
        f"is the best with a probability of {choice.probability_best:.0%}, as far as the "
        f"validation images tell. {rivals}."
    )
