"""How sure a result is, in words."""

import pytest

from service.views.results import ChoiceView, GainView
from service.views.sureness import choice_text, gain_text


def test_a_gain_within_noise_is_called_so() -> None:
    clear = GainView(points=0.153, standard_error=0.021, is_within_noise=False)
    assert gain_text(clear, 80) == (
        "The gain over head-only training is +15.3 points on the 80 test images, with a standard "
        "error of 2.1."
    )
    noise = GainView(points=-0.0125, standard_error=0.021, is_within_noise=True)
    text = gain_text(noise)
    assert "-1.2 points on the test images" in text
    assert text.endswith("that is within noise, there may be none.")


@pytest.mark.parametrize(
    ("num_rivals", "words"),
    [
        (0, "None of the others comes as near as noise."),
        (1, "One other may be as good."),
        (6, "6 others may be as good."),
    ],
)
def test_a_choice_says_how_sure_it_is(num_rivals: int, words: str) -> None:
    choice = ChoiceView(
        num_compared=24, standard_error=0.02, probability_best=0.406, num_rivals=num_rivals
    )
    text = choice_text(choice)
    assert text.startswith("Of 24 candidates within the limits that were scored to the end")
    assert "41%" in text
    assert text.endswith(words)
    earlier = choice_text(choice.model_copy(update={"num_compared": None}))
    assert earlier == text.replace("Of 24", "Of the")


def test_a_choice_without_an_alternative_is_none() -> None:
    choice = ChoiceView(num_compared=1, standard_error=0.02, probability_best=1, num_rivals=0)
    assert choice_text(choice).startswith("The chosen candidate is the only one")
