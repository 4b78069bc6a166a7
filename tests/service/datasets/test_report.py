"""What import_dataset tells about an upload."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from service.datasets.store import import_dataset
from service.record.db.database import Database
from service.record.db.models import Dataset
from service.settings import Settings
from service.views.schemas import DatasetReport, DatasetView

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]
Report = Callable[[Files], DatasetReport]


def noise(seed: int, size: tuple[int, int] = (40, 40), form: str = "PNG") -> bytes:
    width, height = size
    pixels = random.Random(seed).randbytes(3 * width * height)
    stream = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(stream, form)
    return stream.getvalue()


def even_files() -> Files:
    """Nothing to remark: three splits, enough images, all different."""
    counts = {"train": 20, "val": 5, "test": 15}
    names = [
        f"{split}/{name}/{number}.png"
        for split, count in counts.items()
        for name in ("cat", "dog")
        for number in range(count)
    ]
    return {name: noise(seed) for seed, name in enumerate(names)}


@pytest.fixture
def report(settings: Settings, database: Database, make_zip: MakeZip) -> Report:
    def import_and_report(files: Files) -> DatasetReport:
        dataset, _ = import_dataset(make_zip(files), settings=settings, database=database)
        found = DatasetView.of(dataset).report
        assert found is not None
        return found

    return import_and_report


def test_nothing_to_remark(report: Report) -> None:
    found = report(even_files())
    assert found.notes == []
    assert found.formats == {"PNG": 80}
    assert (found.smallest_image, found.largest_image) == ((40, 40), (40, 40))
    assert found.ignored_files == 0


def test_formats_and_sizes(report: Report) -> None:
    files = even_files()
    files["train/cat/a.jpg"] = noise(100, (70, 50), "JPEG")
    files["train/cat/b.webp"] = noise(101, (33, 34), "WEBP")
    found = report(files)
    assert found.formats == {"JPEG": 1, "PNG": 80, "WEBP": 1}
    assert found.smallest_image == (33, 34)
    assert found.largest_image == (70, 50)
    assert found.notes == []


def test_ignored_files_are_counted_alike_in_zips_and_folders(
    settings: Settings, make_zip: MakeZip, tmp_path: Path
) -> None:
    junk = {"__MACOSX/train/cat/._0.png": b"x", "train/.DS_Store": b"y", "Thumbs.db": b"z"}
    archive = make_zip(even_files() | junk)
    folder = tmp_path / "folder"
    zipfile.ZipFile(archive).extractall(folder)
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    for source, where in ((archive, settings), (folder, other)):
        own = Database(where.resolved_database_url)
        own.upgrade()
        dataset, is_new = import_dataset(source, settings=where, database=own)
        own.close()
        assert is_new
        assert dataset.report is not None
        assert dataset.report["ignored_files"] == 3


def _without(files: Files, *splits: str) -> Files:
    return {name: data for name, data in files.items() if name.split("/")[0] not in splits}


def test_missing_splits(report: Report) -> None:
    (note,) = report(_without(even_files(), "val", "test")).notes
    assert "no validation and no test images" in note
    assert "will be taken for the test, then a fifth of the rest to validate." in note
    (note,) = report(_without(even_files(), "val")).notes
    assert note.startswith("There are no validation images: a fifth of every class")


def test_small_classes_and_imbalance(report: Report) -> None:
    files = even_files()
    for number in range(14):
        del files[f"train/dog/{number}.png"]
    (few,) = report(files).notes
    assert few.startswith("Class 'dog' has fewer than 20 training images")
    files |= {f"train/cat/more{number}.png": noise(1000 + number) for number in range(40)}
    few, uneven = report(files).notes
    assert "Class 'cat' has 60 training images and class 'dog' has 6" in uneven


def test_many_small_classes_are_named_shortly(report: Report) -> None:
    files = {
        f"train/class {name}/{number}.png": noise(20 * name + number)
        for name in range(8)
        for number in range(6)
    }
    few = report(files).notes[-1]
    assert few.startswith("8 classes ('class 0', ")
    assert "'class 4' and 3 more) have fewer than" in few


def test_a_split_without_a_class_and_a_small_test(report: Report) -> None:
    files = _without(even_files(), "test")
    files |= {f"test/cat/{number}.png": noise(2000 + number) for number in range(4)}
    empty, small = report(files).notes
    assert "Class 'dog' has no test images" in empty
    assert "only 4 test images: accuracy moves in steps of 25%" in small


def test_repeated_images(report: Report) -> None:
    files = even_files()
    files["train/cat/copy.png"] = files["train/cat/0.png"]
    files["test/dog/leak.png"] = files["train/dog/3.png"]
    files["test/dog/leak2.png"] = files["train/dog/4.png"]
    files["val/dog/wrong.png"] = files["val/cat/1.png"]
    contradicting, leaking, repeated = report(files).notes
    assert "in different classes once, such as 'val/cat/1.png' and 'val/dog/wrong.png'" in (
        contradicting
    )
    assert "in different splits 2 times" in leaking
    assert "'test/dog/leak.png' and 'train/dog/3.png'" in leaking
    assert "in a class again once" in repeated
    assert "'train/cat/copy.png'" in repeated


def test_sizes_that_lose(report: Report) -> None:
    files = even_files()
    files["train/cat/tiny.png"] = noise(3000, (31, 40))
    files["train/dog/long.png"] = noise(3001, (101, 50))
    tiny, long = report(files).notes
    assert "1 image has a side shorter than 32 pixels, such as 'train/cat/tiny.png'" in tiny
    assert "1 image is more than 2 times as long as wide" in long
    assert "'train/dog/long.png' with 101 x 50" in long


def test_a_dataset_of_an_earlier_version_gets_its_report(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    archive = make_zip(flat_files)
    first, _ = import_dataset(archive, settings=settings, database=database)
    with database.writing() as session:
        row = session.get(Dataset, first.id)
        assert row is not None
        row.report = None
    again, is_new = import_dataset(archive, settings=settings, database=database)
    assert not is_new
    assert again.report == first.report is not None
