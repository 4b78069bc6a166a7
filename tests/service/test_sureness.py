"""How sure an accuracy and a result are."""

import pytest

from service.results import ChoiceView, GainView
from service.sureness import choice_text, gain_text, standard_error


def test_no_accuracy_of_few_images_is_certain() -> None:
    certain = standard_error(1.0, 12)
    assert certain is not None
    assert 0.05 < certain < 0.1
    assert standard_error(0.0, 12) == certain
    assert standard_error(0.6, 10_000) == pytest.approx((0.6 * 0.4 / 10_000) ** 0.5, rel=0.01)
    assert standard_error(0.6, None) is None


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
    choice = ChoiceView(standard_error=0.02, probability_best=0.406, num_rivals=num_rivals)
    text = choice_text(choice, 24)
    assert text.startswith("Of 24 scored candidates the chosen one is the best with a probability")
    assert "41%" in text
    assert text.endswith(words)
