import pytest

from service.datasets.layout import is_junk, read_layout
from service.errors import DatasetError


def paths(*folders: str, count: int = 5) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(count)]


def test_flat_folders_are_training_images() -> None:
    layout = read_layout(paths("cat", "dog"), min_images_per_class=5)
    assert layout.classes == ("cat", "dog")
    assert layout.counts() == {"train": {"cat": 5, "dog": 5}}
    assert layout.name is None


@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_split_folders_with_and_without_a_wrapper(wrapper: str) -> None:
    found = read_layout(
        paths(f"{wrapper}train/cat", f"{wrapper}train/dog")
        + paths(f"{wrapper}Validation/cat", f"{wrapper}test/dog", count=2),
        min_images_per_class=5,
    )
    assert found.name == (wrapper.rstrip("/") or None)
    assert found.counts() == {
        "train": {"cat": 5, "dog": 5},
        "val": {"cat": 2, "dog": 0},
        "test": {"cat": 0, "dog": 2},
    }


def test_a_train_folder_alone_is_a_split_and_not_a_wrapper() -> None:
    layout = read_layout(paths("train/cat", "train/dog"), min_images_per_class=5)
    assert layout.classes == ("cat", "dog")


def test_a_wrapper_called_like_a_split() -> None:
    layout = read_layout(paths("train/train/cat", "train/train/dog"), min_images_per_class=5)
    assert (layout.name, layout.classes) == ("train", ("cat", "dog"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no images found"),
        (["a.jpg", "b.jpg"], "'a.jpg' is not in a class folder"),
        ([*paths("cat", "dog"), "readme.txt"], "'readme.txt' is not in a class folder"),
        (paths("a/cat/sub", "a/dog/sub"), "too deep"),
        (paths("cat/sub", count=9) + paths("dog/sub"), "'cat/sub/0.jpg' is too deep"),
        ([*paths("train/cat", "train/dog"), "zzz.txt"], "'zzz.txt' is not in train, val or test"),
        (paths("train/cat", "val/cat", "unused/cat"), "'unused/cat/0.jpg' is not in train"),
        ([*paths("a/cat", "a/dog"), "a/readme.txt"], "'a/readme.txt' is not in a class folder"),
        (paths("cat"), "only one class was found, 'cat'"),
        (paths("train/cat"), "only one class was found, 'cat'"),
        (paths("test/cat", "test/dog"), "no train folder"),
        (paths("cat") + paths("dog", count=4), "class 'dog' has 4 training images; at least 5"),
        (
            paths("train/cat", "train/dog", "test/cow"),
            "class 'cow' is in test but not in train",
        ),
        (paths("cat", "Cat", "dog"), "class names 'Cat' and 'cat' differ only by case"),
        (
            [*paths("cat", "dog"), "cat/0.JPG"],
            "file names 'cat/0.JPG' and 'cat/0.jpg' differ only by case",
        ),
        (paths("cat", "do\x07g"), "control characters"),
        (paths("cat", "gpj.\u202egod"), "control characters"),
        (paths("caf\u00e9", "cafe\u0301"), "by how accents are encoded"),
        (paths("cat", "d" * 201), "at most 200"),
    ],
)
def test_refusals_quote_what_is_wrong(given: list[str], words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_layout(given, min_images_per_class=5)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "New York",
        "\u0645\u06cc\u200c\u0634\u0648\u062f",
        "\u65e5\u3000\u672c",
        "\U0001f468\u200d\U0001f469",
    ],
)
def test_class_names_of_any_script(name: str) -> None:
    layout = read_layout(paths("cat", name), min_images_per_class=5)
    assert set(layout.classes) == {"cat", name}


def test_two_encodings_of_one_name_are_one_class() -> None:
    more = [f"cafe\u0301/more-{number}.jpg" for number in range(5)]
    layout = read_layout([*paths("cat", "caf\u00e9"), *more], min_images_per_class=5)
    assert layout.counts() == {"train": {"caf\u00e9": 10, "cat": 5}}


@pytest.mark.parametrize("path", ["__MACOSX/cat/0.jpg", "cat/.DS_Store", ".git/x", "a/Thumbs.db"])
def test_junk(path: str) -> None:
    assert is_junk(tuple(path.split("/")))
