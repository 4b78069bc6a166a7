"""The headline says what accuracy alone would hide."""

import numpy as np
import pytest

from service.views.evaluation import ClassView, make_headline
from service.work.job.evaluation import evaluate, with_pictures
from service.work.job.report import evaluation_text
from tinytl.training.data import ImageSplit


def view(name: str, right: int, support: int) -> ClassView:
    recall = right / support if support else None
    return ClassView(name=name, support=support, recall=recall, precision=None)


def headline(*classes: ClassView) -> str:
    present = [found for found in classes if found.support]
    right = sum((found.recall or 0) * found.support for found in present)
    balanced = sum(found.recall or 0 for found in present) / len(present)
    return make_headline(right / sum(c.support for c in present), balanced, classes)


def test_even_classes_need_no_more_than_their_accuracy() -> None:
    assert headline(view("cat", 45, 50), view("dog", 47, 50)) == (
        "92.0% of 100 test images are right."
    )


def test_a_rare_class_is_not_hidden() -> None:
    text = headline(view("good", 95, 95), view("cracked", 1, 5))
    assert text == (
        "96.0% of 100 test images are right, but 60.0% with every class counted alike: "
        "only 1 of 5 of 'cracked' are found. "
        "'cracked' has 5 test images: too few to be sure of it."
    )


def test_only_the_weakest_are_named() -> None:
    weak = [view(f"w{number}", number, 20) for number in range(5)]
    text = headline(view("good", 100, 100), *weak)
    assert "only 0 of 20 of 'w0', 1 of 20 of 'w1', 2 of 20 of 'w2' and 2 more are found" in text


@pytest.mark.parametrize(("support", "told"), [(1, "1 test image:"), (2, "2 test images:")])
def test_few_images_are_told(support: int, told: str) -> None:
    text = headline(view("cat", 20, 20), view("dog", support, support))
    assert f"'dog' has {told}" in text


def test_classes_without_test_images_say_nothing() -> None:
    assert "'none'" not in headline(view("cat", 20, 20), view("dog", 20, 20), view("none", 0, 0))


def test_many_classes_have_no_matrix(shared_split: ImageSplit) -> None:
    for num_classes, has_matrix in ((200, True), (201, False)):
        seen = np.full((4, num_classes), 1 / num_classes, dtype=np.float32)
        names = [f"class {number}" for number in range(num_classes)]
        view, pictures = evaluate(shared_split, names, seen)
        assert (view.confusion is not None) is has_matrix
        text = evaluation_text(view)
        assert "| class 7 | 0 |" in text
        assert len(pictures) == 2
        for name in pictures:
            assert f"![]({name})" in text
        shown = with_pictures(view, pictures)["mistakes"]
        assert all(one["image"].startswith("data:image/jpeg;base64,") for one in shown)


@pytest.fixture
def shared_split() -> ImageSplit:
    images = np.random.default_rng(0).integers(256, size=(4, 3, 32, 32), dtype=np.uint8)
    return ImageSplit(images, np.array([0, 0, 1, 1]))


def test_where_classes_hide_nothing_the_headline_does_not_say_but() -> None:
    text = headline(view("cat", 50, 50), view("dog", 40, 50), view("cow", 50, 50))
    assert text.startswith(
        "93.3% of 150 test images are right, and 93.3% with every class counted alike: only 40"
    )
