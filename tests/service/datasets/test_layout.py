import pytest

from service.datasets.containers.leftovers import is_leftover
from service.datasets.layout import Layout
from service.errors import DatasetError
from tests.service.datasets.uploads import layout_of, placement_of


def read(paths: list[str], folders: tuple[str, ...] = ()) -> Layout:
    return layout_of(placement_of(paths, folders))


def paths(*folders: str, count: int = 5) -> list[str]:
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(count)]


def test_flat_folders_are_training_images() -> None:
    layout = read(paths("cat", "dog"))
    assert layout.classes == ("cat", "dog")
    assert layout.counts() == {"train": {"cat": 5, "dog": 5}}
    assert layout.name is None


@pytest.mark.parametrize("wrapper", ["", "pets/"])
def test_split_folders_with_and_without_a_wrapper(wrapper: str) -> None:
    found = read(
        paths(f"{wrapper}train/cat", f"{wrapper}train/dog")
        + paths(f"{wrapper}Validation/cat", f"{wrapper}test/dog", count=2),
    )
    assert found.name == (wrapper.rstrip("/") or None)
    assert found.counts() == {
        "train": {"cat": 5, "dog": 5},
        "val": {"cat": 2, "dog": 0},
        "test": {"cat": 0, "dog": 2},
    }


def test_a_train_folder_alone_is_a_split_and_not_a_wrapper() -> None:
    layout = read(paths("train/cat", "train/dog"))
    assert layout.classes == ("cat", "dog")


def test_a_wrapper_called_like_a_split() -> None:
    layout = read(paths("train/train/cat", "train/train/dog"))
    assert (layout.name, layout.classes) == ("train", ("cat", "dog"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no images found"),
        (["a.jpg", "b.jpg"], "'a.jpg' is not in a class folder"),
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
        read(given)
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
    layout = read(paths("cat", name))
    assert set(layout.classes) == {"cat", name}


def test_two_encodings_of_one_name_are_one_class() -> None:
    more = [f"cafe\u0301/more-{number}.jpg" for number in range(5)]
    layout = read([*paths("cat", "caf\u00e9"), *more])
    assert layout.counts() == {"train": {"caf\u00e9": 10, "cat": 5}}


def test_what_lies_astray_is_named_with_why() -> None:
    for given, astray in (
        ([*paths("cat", "dog"), "a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
        ([*paths("a/cat", "a/dog"), "a/0.jpg"], ["a/0.jpg"]),
        ([*paths("train/cat", "train/dog"), "train/0.jpg"], ["train/0.jpg"]),
        ([*paths("a/b/cat", "a/b/dog"), "0.jpg", "a/1.jpg"], ["0.jpg", "a/1.jpg"]),
    ):
        placement = placement_of(given)
        assert dict(placement.astray) == dict.fromkeys(astray, "is not in a class folder")
    placement = placement_of(paths("train/cat", "val/cat", "unused/cat"))
    assert len(placement.astray) == 5
    assert set(placement.astray.values()) == {"is not in train, val or test, as others are"}


def test_files_that_are_no_images_are_left_out() -> None:
    notes = ("readme.txt", "a/classes.json", "cat/README", "cat/IMG_1.MOV")
    layout = read([*paths("cat", "dog"), *notes])
    assert layout.counts() == {"train": {"cat": 5, "dog": 5}}
    assert layout.num_left_out == 4
    assert any("'a/classes.json'" in note for note in layout.notes)


@pytest.mark.parametrize("wrapper", ["photos/", "a/b/c/"])
def test_folders_around_everything(wrapper: str) -> None:
    layout = read(paths(f"{wrapper}cat", f"{wrapper}dog"))
    assert layout.classes == ("cat", "dog")
    assert layout.name == wrapper.split("/")[0]


def test_folders_in_class_folders_are_of_the_class_and_told() -> None:
    layout = read(paths("dog/poodle", "dog/terrier", "cat", "dog"))
    assert layout.counts() == {"train": {"cat": 5, "dog": 15}}
    (note,) = layout.notes
    assert "Class 'dog' has 2 folders ('poodle', 'terrier') in it" in note


def test_splits_within_class_folders_are_splits() -> None:
    layout = read(paths("cat/train", "cat/test", "dog/train", "dog/test"))
    assert layout.counts() == {"train": {"cat": 5, "dog": 5}, "test": {"cat": 5, "dog": 5}}
    assert "were taken as splits" in layout.notes[0]


@pytest.mark.parametrize("word", ["Training", "TRAIN", "trn", "train_set"])
def test_splits_have_several_names(word: str) -> None:
    layout = read(paths(f"{word}/cat", f"{word}/dog", "Dev/cat", "TESTING/dog"))
    assert layout.counts() == {
        "train": {"cat": 5, "dog": 5},
        "val": {"cat": 5, "dog": 0},
        "test": {"cat": 0, "dog": 5},
    }


@pytest.mark.parametrize("test", [["test/0.jpg", "test/1.jpg"], paths("test/images")])
def test_a_test_split_without_labels_is_left_out_and_told(test: list[str]) -> None:
    layout = read([*paths("train/cat", "train/dog"), *test])
    assert set(layout.counts()) == {"train"}
    (note,) = layout.notes
    assert f"{len(test)} images (" in note
    assert "without a label: left out" in note


@pytest.mark.parametrize("folder", ["no_label", "_unlabeled", "Unlabeled"])
def test_what_cvat_and_fiftyone_call_no_label_is_no_class(folder: str) -> None:
    layout = read(paths("train/cat", "train/dog", f"train/{folder}"))
    assert layout.classes == ("cat", "dog")
    assert f"without a label in {folder!r}" in layout.notes[0]


def test_folders_that_come_to_be_no_class_are_named() -> None:
    layout = read(paths("cat", "dog"), folders=("cat", "dog", "bird", "cat/new"))
    (note,) = layout.notes
    assert "1 folder ('bird') without images" in note
    drawings = read([*paths("cat", "dog"), "bird/0.svg"])
    assert "1 folder ('bird') without images" in drawings.notes[0]
    around = read(paths("a/cat", "a/dog"), folders=("a", "a/cat", "a/dog", "a/bird"))
    assert "1 folder ('a/bird') without images" in around.notes[0]


def test_classes_by_accident_are_named() -> None:
    for other in ("cat (1)", "cat copy", "cats"):
        layout = read(paths("cat", other, "dog"))
        assert f"'cat' and {other!r} are taken for different classes" in layout.notes[0]
    assert "'New folder'" in read(paths("cat", "dog", "New folder")).notes[0]
    assert "'train' is taken for a class" in read(paths("train", "car", "plane")).notes[0]


def test_hidden_images_are_named() -> None:
    layout = read([*paths("cat", "dog", ".bird"), "cat/.0.jpg", "cat/._0.jpg"])
    assert layout.classes == ("cat", "dog")
    assert "6 images (" in layout.notes[0]
    assert "'.bird/0.jpg'" in layout.notes[0]


@pytest.mark.parametrize(
    "path",
    [
        *("__MACOSX/cat/0.jpg", "cat/.DS_Store", ".git/x", "a/Thumbs.db", "a/thumbs.db"),
        *("cat/@eaDir/0.png/SYNOFILE_THUMB_M.jpg", "cat/Desktop.ini", "cat/Icon\r"),
        *("cat/0.png.supplemental-metadata.json", "cat/0.JPG.json", "cat/IMG_1.AAE"),
        "#recycle/cat/0.jpg",
    ],
)
def test_leftovers(path: str) -> None:
    assert is_leftover(tuple(path.split("/")))


@pytest.mark.parametrize("path", ["cat/icon.png", "desktop/0.jpg", "a/labels.json"])
def test_no_leftovers(path: str) -> None:
    assert not is_leftover(tuple(path.split("/")))


def test_splits_whose_names_have_more_in_them() -> None:
    """As in a well-known set of landscapes, whose third folder has no labels."""
    given = paths("a/seg_train/seg_train/sea", "a/seg_train/seg_train/ice", count=6)
    given += paths("a/seg_test/seg_test/sea", "a/seg_test/seg_test/ice")
    layout = read([*given, "a/seg_pred/seg_pred/1.jpg"])
    assert layout.counts() == {"train": {"ice": 6, "sea": 6}, "test": {"ice": 5, "sea": 5}}
    assert any("'a/seg_pred/seg_pred/1.jpg') without a label" in note for note in layout.notes)


def test_classes_that_are_called_like_splits_and_more() -> None:
    layout = read(paths("train station", "test tube", "steam_train"))
    assert layout.classes == ("steam_train", "test tube", "train station")


def test_a_folder_around_all_of_a_split() -> None:
    layout = read(paths("train/images/cat", "train/images/dog", "test/cat"))
    assert layout.counts() == {"train": {"cat": 5, "dog": 5}, "test": {"cat": 5, "dog": 0}}
    nested = read([*paths("train/dog", "train/cat"), *paths("val/dog/poodle")])
    assert nested.counts()["val"] == {"cat": 0, "dog": 5}


def test_classes_in_the_names_of_images() -> None:
    names = ("cat.{}", "dog_{}", "red fox ({})")
    given = [f"train/{name.format(n)}.jpg" for name in names for n in range(5)]
    layout = read(given)
    assert layout.counts() == {"train": {"cat": 5, "dog": 5, "red fox": 5}}
    assert "how their names begin ('cat', 'dog', 'red fox')" in layout.notes[0]
    for other in ("IMG_{}", "{}", "DSC{}"):
        mixed = [f"photos/{name.format(n)}.jpg" for name in ("cat.{}", other) for n in range(5)]
        with pytest.raises(DatasetError, match="only one class was found, 'photos'"):
            read(mixed)
