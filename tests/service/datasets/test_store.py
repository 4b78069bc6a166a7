"""Datasets come, stay and go."""

import os
import random
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from service.datasets.image_archive import StoredImage
from service.datasets.store import (
    delete_dataset,
    get_dataset,
    import_dataset,
    list_datasets,
    remove_stale_uploads,
    unpacked_images,
)
from service.errors import DatasetError, NotFoundError
from service.record.db.database import Database
from service.record.db.models import Dataset
from service.record.files.blobs import open_blobs
from service.record.files.collecting import collect
from service.settings import Settings
from tests.service.datasets.uploads import Files, MakeZip, image_bytes, left_behind
from tests.service.support.stores import stored_kinds


def unpacked(
    dataset: Dataset, settings: Settings, database: Database
) -> AbstractContextManager[list[StoredImage]]:
    blobs = open_blobs(settings, database)
    return unpacked_images(dataset, settings, blobs, settings.incoming_dir / "scratch")


def test_a_zip_becomes_a_dataset(
    settings: Settings, database: Database, make_zip: MakeZip, split_files: Files
) -> None:
    split_files |= {"__MACOSX/shapes/._0.png": b"x", "shapes/train/.DS_Store": b"y"}
    dataset, is_new = import_dataset(make_zip(split_files), settings=settings, database=database)
    assert is_new
    assert dataset.name == "shapes"
    assert dataset.classes == ["circle", "square"]
    assert dataset.counts["test"] == {"circle": 4, "square": 4}
    assert dataset.num_images == 32
    with unpacked(dataset, settings, database) as images:
        assert [image.split for image in images].count("train") == 24
        assert {image.path.read_bytes() for image in images} == {
            data
            for name, data in split_files.items()
            if name.endswith("g") and "." not in name[:2]
        } - {b"x"}
        assert all(image.path.name.isdigit() for image in images)
    assert left_behind(settings) == []
    assert stored_kinds(settings, database) == ["dataset"]


def test_the_same_content_is_the_same_dataset(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, tmp_path: Path
) -> None:
    first, _ = import_dataset(make_zip(flat_files), settings=settings, database=database)
    shuffled = dict(random.Random(1).sample(sorted(flat_files.items()), len(flat_files)))
    wrapped = {f"wrapped/{name}": data for name, data in shuffled.items()}
    again, is_new = import_dataset(make_zip(wrapped), settings=settings, database=database)
    assert (again.id, is_new) == (first.id, False)

    folder = tmp_path / "folder"
    for name, data in flat_files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    from_folder, is_new = import_dataset(folder, settings=settings, database=database)
    assert (from_folder.id, is_new) == (first.id, False)

    flat_files["circle/0.png"] = image_bytes()
    other, is_new = import_dataset(make_zip(flat_files), settings=settings, database=database)
    assert is_new
    assert other.id != first.id
    assert len(list_datasets(database)) == 2
    assert not list(settings.incoming_dir.iterdir())


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("my\nshapes\t2", "my shapes 2"),
        ("\x1b[2Jsh\0apes", "\ufffd[2Jsh\ufffdapes"),
        ("caf\udce9", "caf\ufffd"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        (" \n", "dataset"),
        ("n" * 300, "n" * 200),
    ],
)
def test_names_become_one_line_of_text(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    given: str,
    stored: str,
) -> None:
    archive = make_zip(flat_files)
    dataset, _ = import_dataset(archive, settings=settings, database=database, name=given)
    assert get_dataset(database, dataset.id).name == stored


def test_the_name_of_a_folder_becomes_one_line_of_text(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, tmp_path: Path
) -> None:
    wrapped = make_zip({f"\x1b[2J\nshapes/{name}": data for name, data in flat_files.items()})
    dataset, _ = import_dataset(wrapped, settings=settings, database=database)
    assert dataset.name == "\ufffd[2J shapes"
    delete_dataset(database, settings, dataset.id)
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    zipfile.ZipFile(make_zip(flat_files)).extractall(folder)
    dataset, _ = import_dataset(folder, settings=settings, database=database)
    assert dataset.name == "caf\ufffd"


def test_two_uploads_at_once_are_one_dataset(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    archives = [make_zip(flat_files) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(
                lambda path: import_dataset(path, settings=settings, database=database), archives
            )
        )
    assert len({dataset.id for dataset, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


def test_names_in_utf_8_that_does_not_say_so(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    """As macOS's own zips are."""
    named = {name.replace("circle", "caf\u00e9"): data for name, data in flat_files.items()}
    content = bytearray(make_zip(named).read_bytes())
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags + 1] &= ~0x08
            start = content.find(signature, start + 4)
    archive = make_zip({})
    archive.write_bytes(content)
    dataset, _ = import_dataset(archive, settings=settings, database=database)
    assert dataset.classes == ["caf\u00e9", "square"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, form: str
) -> None:
    flat_files["circle/7"] = image_bytes(form=form)
    import_dataset(make_zip(flat_files), settings=settings, database=database)


def test_missing(settings: Settings, database: Database) -> None:
    with pytest.raises(DatasetError, match=r"'/nowhere/x.zip' does not exist"):
        import_dataset(Path("/nowhere/x.zip"), settings=settings, database=database)
    with pytest.raises(NotFoundError, match="no dataset 'abc'"):
        get_dataset(database, "abc")


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_dataset_whose_images_are_gone_is_stored_again(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, fault: str
) -> None:
    archive = make_zip(flat_files)
    dataset, _ = import_dataset(archive, settings=settings, database=database)
    blobs = open_blobs(settings, database)
    assert dataset.blob_sha256 is not None
    path = blobs.path(blobs.find(dataset.blob_sha256))
    assert path is not None
    if fault == "missing":
        path.unlink()
    else:
        blobs.objects.write(path.name, path.read_bytes()[::-1])
    with (
        pytest.raises(NotFoundError, match="upload it again"),
        unpacked(dataset, settings, database),
    ):
        pass
    import_dataset(archive, settings=settings, database=database)
    with unpacked(dataset, settings, database) as images:
        assert len(images) == 12


def test_a_dataset_of_an_earlier_version(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    """It lies in a folder; sent again, it moves to the artifact store."""
    archive = make_zip(flat_files)
    dataset, _ = import_dataset(archive, settings=settings, database=database)
    folder = settings.datasets_dir / dataset.id
    with unpacked(dataset, settings, database) as images:
        shutil.copytree(images[0].path.parent.parent, folder)
    with database.writing() as session:
        known = session.get(Dataset, dataset.id)
        assert known is not None
        known.blob_sha256 = None
    collect(open_blobs(settings, database), grace_seconds=0)
    dataset = get_dataset(database, dataset.id)
    with unpacked(dataset, settings, database) as images:
        assert {image.path.read_bytes() for image in images} == set(flat_files.values())
    assert folder.is_dir()
    again, is_new = import_dataset(archive, settings=settings, database=database)
    assert (again.id, is_new) == (dataset.id, False)
    assert not folder.exists()
    with unpacked(again, settings, database) as images:
        assert {image.path.read_bytes() for image in images} == set(flat_files.values())


def test_the_same_images_give_the_same_bytes(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    first, _ = import_dataset(make_zip(flat_files), settings=settings, database=database)
    delete_dataset(database, settings, first.id)
    assert list_datasets(database) == []
    again, is_new = import_dataset(make_zip(flat_files), settings=settings, database=database)
    assert is_new
    assert again.blob_sha256 == first.blob_sha256
    assert stored_kinds(settings, database) == ["dataset"]


def test_leftovers_of_killed_uploads_go_after_a_day(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_stale_uploads(settings)
    old, young = settings.incoming_dir / "old.zip", settings.incoming_dir / "young.zip"
    old_folder = settings.incoming_dir / "old"
    old_folder.mkdir(parents=True)
    for path in (old, young, old_folder / "images.zip"):
        path.touch()
    for path, hours in ((old, 25), (old_folder, 25), (young, 23)):
        changed = time.time() - hours * 3600
        os.utime(path, (changed, changed))
    vanished = settings.incoming_dir / "vanished.zip"
    seen = [vanished, *settings.incoming_dir.iterdir()]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(seen))
    remove_stale_uploads(settings)
    monkeypatch.undo()
    assert left_behind(settings) == [young]
