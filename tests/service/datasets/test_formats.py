"""Other tools' exports: which image is of which class and split."""

import json
from collections.abc import Iterable, Mapping

import pytest

from service.datasets.formats.recognize import place
from service.datasets.layout import Layout
from service.errors import DatasetError
from tests.service.datasets.uploads import InMemory, layout_of

COUNT = 14


def images(folder: str, numbers: Iterable[int] = range(COUNT), suffix: str = ".png") -> list[str]:
    return [f"{folder}{number}{suffix}" for number in numbers]


def label(number: int) -> str:
    return "cat" if number % 2 else "dog"


def read(paths: Iterable[str], texts: Mapping[str, str]) -> Layout:
    files = dict.fromkeys(paths, b"") | {name: text.encode() for name, text in texts.items()}
    return layout_of(place(InMemory(files)))


def check(layout: Layout, *, num_test: int = 0, num_val: int = 0) -> None:
    """That odd numbers are cats and even ones dogs."""
    for file in layout.files:
        number = int("".join(filter(str.isdigit, file.path.rsplit("/", 1)[-1].split(".")[0])))
        assert file.class_name == label(number)
    counts = layout.counts()
    assert sum(counts.get("test", {}).values()) == num_test
    assert sum(counts.get("val", {}).values()) == num_val


def test_kaggle() -> None:
    """Names without suffix, a test without labels, an example of an answer."""
    train = "id,breed\n" + "".join(f"{number},{label(number)}\n" for number in range(COUNT))
    texts = {
        "train.csv": train,
        "test.csv": "id\n90\n91\n",
        "sample_submission.csv": "id,breed\n90,cat\n91,cat\n",
    }
    layout = read(images("train/") + images("test/", (90, 91)), texts)
    check(layout)
    assert len(layout.files) == COUNT
    assert "The labels are those of 'train.csv'." in layout.notes
    assert any("'test/91.png') without a label" in note for note in layout.notes)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["file,label\n", "\ufefffile_name,Class\n", ""])
def test_a_csv_beside_a_folder_of_images(delimiter: str, head: str) -> None:
    rows = "".join(f"{number}.png,{label(number)}\r\n" for number in range(COUNT))
    table = (head + rows).replace(",", delimiter)
    layout = read(images("images/"), {"labels.csv": table})
    check(layout)
    assert len(layout.files) == COUNT


def test_label_studio() -> None:
    """Its columns are called as the project's tags; a row is an annotator's."""
    head = "id,photo,kind,annotator,annotation_id,created_at,updated_at,lead_time\n"
    rows = [
        f"{number},/data/upload/1/0a1b2c3d-img{number}.png,{label(number)},1,{number},t,t,3.5"
        for number in range(COUNT)
    ]
    rows.append("0,/data/upload/1/0a1b2c3d-img0.png,cat,2,90,t,t,1.5")  # the other annotator
    rows.append("91,/data/upload/1/0a1b2c3d-img91.png,,1,91,t,t,1.5")  # cancelled
    layout = read(
        images("images/0a1b2c3d-img", (*range(COUNT), 91)), {"project.csv": head + "\n".join(rows)}
    )
    assert layout.counts() == {"train": {"cat": 7, "dog": 6}}
    doubt = next(note for note in layout.notes if "different labels" in note)
    assert "'images/0a1b2c3d-img0.png: cat or dog'" in doubt
    assert any("'images/0a1b2c3d-img91.png') without a label" in note for note in layout.notes)


def test_label_studio_as_json_and_with_several_choices() -> None:
    tasks = [
        {"image": f"/data/upload/1/0a1b2c3d-{n}.png", "choice": label(n), "id": n}
        for n in range(COUNT)
    ]
    tasks[3]["choice"] = {"choices": ["cat", "dog"]}  # type: ignore[assignment]
    layout = read(images("images/"), {"export.json": json.dumps(tasks)})
    check(layout)
    assert len(layout.files) == COUNT - 1
    assert any("'images/3.png') with several labels" in note for note in layout.notes)


def test_roboflow_with_marks() -> None:
    def table(numbers: Iterable[int]) -> str:
        rows = (f"{n}.png, {int(label(n) == 'cat')}, {int(label(n) == 'dog')}" for n in numbers)
        return "filename, cat, dog\n" + "\n".join(rows)

    splits = {"train": range(COUNT), "valid": range(20, 24), "test": range(30, 32)}
    paths = [path for split, numbers in splits.items() for path in images(f"{split}/", numbers)]
    texts = {f"{split}/_classes.csv": table(numbers) for split, numbers in splits.items()}
    layout = read(paths, {**texts, "README.roboflow.txt": "notes"})
    check(layout, num_val=4, num_test=2)
    assert len(layout.files) == COUNT + 6


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_hugging_face_image_folder(name: str) -> None:
    def table(numbers: Iterable[int]) -> str:
        if name.endswith(".csv"):
            return "file_name,label\n" + "".join(f"{n}.png,{label(n)}\n" for n in numbers)
        rows = ({"file_name": f"{n}.png", "label": label(n)} for n in numbers)
        return "".join(json.dumps(row) + "\n" for row in rows)

    layout = read(
        [*images("data/train/"), *images("data/test/", range(2))],  # the same names again
        {f"data/train/{name}": table(range(COUNT)), f"data/test/{name}": table(range(2))},
    )
    check(layout, num_test=2)
    assert len(layout.files) == COUNT + 2


def test_numbers_of_rows_are_not_taken_for_names_of_images() -> None:
    rows = "".join(f"{n},{(n + 1) % COUNT}.png,{label(n + 1)}\n" for n in range(COUNT))
    check(read(images("images/"), {"x.csv": f"id,photo,label\n{rows}"}))


@pytest.mark.parametrize("head", ["", "image label\n"])
def test_a_plain_list(head: str) -> None:
    rows = "".join(f"{n}.png {label(n)}\n" for n in range(COUNT))
    layout = read(images("images/"), {"labels.txt": head + rows, "README.txt": "Some words.\n"})
    check(layout)
    assert len(layout.files) == COUNT


def test_a_plain_list_of_numbers_and_their_names() -> None:
    """As datumaro writes it; the last line has two labels, the one before none."""
    rows = "".join(f"{n}.png {int(label(n) == 'dog')}\n" for n in range(COUNT))
    texts = {"train.txt": f"{rows}90.png\n91.png 0 1\n", "synsets.txt": "cat\ndog\n"}
    layout = read([*images("images/"), "images/90.png", "images/91.png"], texts)
    check(layout)
    assert len(layout.files) == COUNT
    assert layout.notes[1] == "The classes' names are those of 'synsets.txt'."


def test_splits_in_a_column() -> None:
    rows = "".join(f"{n}.png,{'Test' if n > 11 else 'TRAIN'},{label(n)}\n" for n in range(COUNT))
    check(read(images("images/"), {"all.csv": f"path,split,label\n{rows}"}), num_test=2)


def test_which_column_the_label_is_has_to_be_clear() -> None:
    rows = "".join(f"{n}.png,{label(n)},{n % 3}\n" for n in range(COUNT))
    with pytest.raises(
        DatasetError, match=r"several columns that could be the label \('a', 'b'\)"
    ):
        read(images("images/"), {"x.csv": f"file,a,b\n{rows}"})
    check(read(images("images/"), {"x.csv": f"file,label,b\n{rows}"}))


def test_class_folders_are_not_overruled_by_any_table() -> None:
    paths = [f"{label(n)}/{n}.png" for n in range(COUNT)]
    sizes = "".join(f"{n}.png,{n % 2},{n % 3}\n" for n in range(COUNT))
    layout = read(paths, {"sizes.csv": f"file,width,sharp\n{sizes}"})
    check(layout)
    assert any("'sizes.csv'" in note for note in layout.notes)
    parts = [f"part{n % 2}/{n}.png" for n in range(COUNT)]
    labels = "".join(f"{n},{label(n)}\n" for n in range(COUNT))
    check(read(parts, {"labels.csv": f"id,label\n{labels}"}))


def test_images_in_parts_beside_a_table_whose_columns_say_nothing() -> None:
    """The parts come to be classes, which is told."""
    parts = [f"part_{n % 2}/{n}.png" for n in range(COUNT)]
    rows = "".join(f"{n},{label(n)},{n % 3}\n" for n in range(COUNT))
    layout = read(parts, {"metadata.csv": f"image_id,dx,age\n{rows}"})
    assert layout.classes == ("part_0", "part_1")
    assert any("'metadata.csv' names images, too: if its labels" in note for note in layout.notes)


def test_the_same_names_in_train_and_test() -> None:
    rows = "".join(f"{n}.png,{label(n)}\n" for n in range(COUNT))
    layout = read(images("train/") + images("test/"), {"train.csv": f"image,label\n{rows}"})
    check(layout)
    assert {file.path for file in layout.files} == set(images("train/"))


def test_paths_of_another_machine() -> None:
    rows = "".join(f"C:\\Users\\me\\{n}.png,{label(n)}\n" for n in range(COUNT))
    check(read(images("images/"), {"x.csv": f"path,label\n{rows}"}))


def test_rows_and_images_without_each_other_are_told() -> None:
    rows = "".join(f"{n}.png,{label(n)}\n" for n in range(COUNT + 1))
    layout = read([*images("images/"), "images/90.png"], {"x.csv": f"file,label\n{rows}"})
    assert any("1 row ('14.png') of images that are not there" in note for note in layout.notes)
    assert any("1 image ('images/90.png') without a label" in note for note in layout.notes)


def edge_impulse(**changes: object) -> str:
    files = [
        {
            "path": f"{'testing' if n > 11 else 'training'}/{n}.png",
            "name": str(n),
            "category": "testing" if n > 11 else "training",
            "label": {"type": "label", "label": label(n)},
            "boundingBoxes": [],
        }
        for n in range(COUNT)
    ]
    files[0].update(changes)
    return json.dumps({"version": 1, "files": files})


def test_edge_impulse() -> None:
    paths = images("training/", range(12)) + images("testing/", range(12, COUNT))
    check(read(paths, {"info.labels": edge_impulse()}), num_test=2)
    layout = read(paths, {"info.labels": edge_impulse(label={"type": "unlabeled"})})
    assert len(layout.files) == COUNT - 1
    assert any("'training/0.png') without a label" in note for note in layout.notes)
    with pytest.raises(DatasetError, match="has boxes, for 'training/0"):
        read(paths, {"info.labels": edge_impulse(boundingBoxes=[{"label": "cat"}])})
    for broken in ("{", "[]", '{"files": 1}', '{"files": [1]}', "[" * 100_000):
        with pytest.raises(DatasetError, match=r"info\.labels"):
            read(paths, {"info.labels": broken})


def test_fiftyone() -> None:
    labels = {str(n): ["cat", "dog"].index(label(n)) for n in range(COUNT)}
    document = {"classes": ["cat", "dog"], "labels": {**labels, "90": None}}
    paths = images("data/", (*range(COUNT), 90), ".jpg")
    layout = read(paths, {"labels.json": json.dumps(document)})
    check(layout)
    assert any("'data/90.jpg') without a label" in note for note in layout.notes)
    names = {"classes": None, "labels": {str(n): {"label": label(n)} for n in range(COUNT)}}
    check(read(paths, {"labels.json": json.dumps(names)}))
    wrong = {"classes": ["cat"], "labels": labels}
    with pytest.raises(DatasetError, match="label 1, which its list of classes has not"):
        read(paths, {"labels.json": json.dumps(wrong)})


@pytest.mark.parametrize("name", ["_annotations.coco.json", "data.yaml"])
def test_exports_of_boxes_are_told_what_to_do(name: str) -> None:
    with pytest.raises(DatasetError, match="export it as a folder for each class"):
        read(images("images/"), {name: "{}"})


@pytest.mark.parametrize(("suffix", "kind"), [("xml", "Pascal VOC"), ("txt", "YOLO")])
def test_boxes_in_a_file_for_each_image(suffix: str, kind: str) -> None:
    texts = {f"labels/{n}.{suffix}": "0 0.5 0.5 1 1\n" for n in range(COUNT)}
    with pytest.raises(DatasetError, match=f"an export of boxes .{kind}"):
        read(images("images/"), texts)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.csv", "file,label\n" + "0.png," + "x" * 200_000, "can't be read as a table"),
        ("x.jsonl", '{"file_name": "0.png"\n', "can't be read as a table"),
        ("x.json", "[" * 100_000, "can't be read as a table"),
    ],
)
def test_damaged_tables(name: str, text: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read(images("images/"), {name: text})


def test_a_table_means_images_of_the_archive_only() -> None:
    rows = "".join(f"../../etc/{n}.jpg,{label(n)}\n" for n in range(COUNT))
    layout = read(images("images/", suffix=".jpg"), {"x.csv": f"file,label\n{rows}"})
    assert {file.path for file in layout.files} == set(images("images/", suffix=".jpg"))


def test_a_table_in_another_encoding_is_told() -> None:
    files = dict.fromkeys(images("images/"), b"")
    files["x.csv"] = "file,label\n0.png,Bär\n".encode("latin-1")
    with pytest.raises(DatasetError, match=r"'x\.csv' is not in UTF-8"):
        place(InMemory(files))
