import io
import os
import random
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image

from service.datasets.image_archive import StoredImage
from service.datasets.store import (
    delete_dataset,
    get_dataset,
    import_dataset,
    list_datasets,
    remove_stale_uploads,
    unpacked_images,
)
from service.errors import DatasetError, NotFoundError, TooLargeError
from service.record.blobs import open_blobs
from service.record.collecting import collect
from service.record.database import Database
from service.record.models import Dataset
from service.settings import Settings
from tests.service.stores import stored_kinds

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


def left_behind(settings: Settings) -> list[Path]:
    folders = (settings.datasets_dir, settings.incoming_dir)
    return [path for folder in folders if folder.is_dir() for path in folder.iterdir()]


def unpacked(
    dataset: Dataset, settings: Settings, database: Database
) -> AbstractContextManager[list[StoredImage]]:
    blobs = open_blobs(settings, database)
    return unpacked_images(dataset, settings, blobs, settings.incoming_dir / "scratch")


def refuse(path: Path, settings: Settings, database: Database) -> str:
    """The words in which the dataset is refused; nothing may be left behind."""
    with pytest.raises(DatasetError) as caught:
        import_dataset(path, settings=settings, database=database)
    assert left_behind(settings) == []
    assert list_datasets(database) == []
    return str(caught.value)


def image_bytes(size: tuple[int, int] = (32, 32), form: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(stream, form)
    return stream.getvalue()


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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/cat/0.png", "absolute path"),
        ("C:\\cat\\0.png", "absolute path"),
        ("../cat/0.png", "points outside"),
        ("cat/../../0.png", "points outside"),
        ("cat\\..\\..\\0.png", "points outside"),
    ],
)
def test_paths_that_escape(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    name: str,
    words: str,
) -> None:
    flat_files[name] = image_bytes()
    message = refuse(make_zip(flat_files), settings, database)
    assert words in message
    assert repr(name) in message


def test_backslashes_of_windows_zips_are_separators(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    files = {name.replace("/", "\\"): data for name, data in flat_files.items()}
    dataset, _ = import_dataset(make_zip(files), settings=settings, database=database)
    assert dataset.classes == ["circle", "square"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an image"),
        (b"no image at all", "not an image"),
        (b"PK\x03\x04" + b"\0" * 60, "is an archive"),
        (b"\x80\x04\x95" + b"pickle", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (image_bytes(form="JPEG")[:400], "damaged"),
        (image_bytes((64, 64), form="PNG")[:-2000], "damaged"),
        (image_bytes(form="TIFF", mode="I"), "32 bits a pixel"),
        (image_bytes(form="TIFF", mode="F"), "32 bits a pixel"),
    ],
)
def test_files_that_are_no_images(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    data: bytes,
    words: str,
) -> None:
    flat_files["circle/bad.jpg"] = data
    message = refuse(make_zip(flat_files), settings, database)
    assert words in message
    assert "'circle/bad.jpg'" in message


def test_an_archive_in_the_archive(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    flat_files["circle/more.zip"] = make_zip({"a/b.png": image_bytes()}).read_bytes()
    assert "archive in the archive" in refuse(make_zip(flat_files), settings, database)


def test_an_image_with_too_many_pixels(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    flat_files["circle/big.png"] = image_bytes((40, 50))
    small = settings.model_copy(update={"max_image_pixels": 1999})
    assert "40 x 50 pixels; at most 1999" in refuse(make_zip(flat_files), small, database)


def test_a_decompression_bomb(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        end = struct.pack(">L", zlib.crc32(kind + body))
        return struct.pack(">L", len(body)) + kind + body + end

    header = struct.pack(">LLBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    flat_files["circle/bomb.png"] = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert "too large" in refuse(make_zip(flat_files), settings, database)


def test_entries_that_unpack_too_far(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    flat_files["circle/flat.bmp"] = bytes(3_000_000)
    assert "zip bomb" in refuse(make_zip(flat_files), settings, database)


def test_limits_on_count_and_size(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, tmp_path: Path
) -> None:
    archive = make_zip(flat_files)
    zipfile.ZipFile(archive).extractall(tmp_path / "folder")
    for update, words in (
        ({"max_dataset_images": 11}, "at most 11"),
        ({"max_dataset_bytes": 500}, "at most 500 B"),
        ({"max_image_bytes": 90}, "at most 90 B"),
    ):
        small = settings.model_copy(update=update)
        assert words in refuse(archive, small, database)
        refuse(tmp_path / "folder", small, database)
    with pytest.raises(TooLargeError, match="at most 1"):
        import_dataset(
            archive, settings=settings.model_copy(update={"max_classes": 1}), database=database
        )


def test_a_table_of_contents_that_would_fill_the_memory(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    archive = make_zip(flat_files | {f"junk/.{number}": b"" for number in range(400)})
    small = settings.model_copy(update={"max_dataset_images": 12})
    assert "table of contents" in refuse(archive, small, database)


def test_more_entries_than_images_need_are_not_read(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = settings.model_copy(update={"max_dataset_images": 12, "max_classes": 2})
    folders = dict.fromkeys(("circle/", "square/"), b"")
    junk = {f".{number}": b"" for number in range(26)}
    within, beyond = (
        make_zip(flat_files | folders | more) for more in (junk, {**junk, ".x": b""})
    )
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("zipfile has read it"))
    assert "more than 40 entries" in refuse(beyond, small, database)
    monkeypatch.undo()
    import_dataset(within, settings=small, database=database)


def test_a_table_of_contents_that_is_not_there(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    path = make_zip(flat_files)
    data = path.read_bytes()
    size_at = data.index(b"PK\x05\x06") + 12
    path.write_bytes(data[:size_at] + struct.pack("<L", 50_000_000) + data[size_at + 4 :])
    assert "says that its table of contents has 50.0 MB" in refuse(path, settings, database)
    path.write_bytes(data.replace(b"PK\x01\x02", b"PK\x01\x03", 1))
    assert "table of contents is damaged" in refuse(path, settings, database)


def test_zip64(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 11)
    path = make_zip(flat_files)
    assert b"PK\x06\x06" in path.read_bytes()
    dataset, _ = import_dataset(path, settings=settings, database=database)
    assert dataset.num_images == 12


@pytest.mark.parametrize("trailing_bytes", [0, 1, 65_535, 65_536])
def test_a_zip64_record_beside_the_one_that_zipfile_reads(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: Files,
    trailing_bytes: int,
) -> None:
    """The locator names a modest one; right before the locator is another."""

    def record(directory_bytes: int) -> bytes:
        fields = (44, 45, 45, 0, 0, 12, 12, directory_bytes, 0)
        return struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *fields)

    path = make_zip(flat_files)
    data = path.read_bytes()
    end = data.index(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    trailing = bytes(trailing_bytes)
    path.write_bytes(data[:end] + record(100) + record(10**9) + locator + data[end:] + trailing)
    message = f"zip64 record is at byte {end}, but its place is byte {end + 56}"
    assert message in refuse(path, settings, database)


def test_symlinks_and_devices(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    for kind, words in ((stat.S_IFLNK, "symbolic link"), (stat.S_IFCHR, "special file")):
        path = make_zip(flat_files)
        with zipfile.ZipFile(path, "a") as archive:
            entry = zipfile.ZipInfo("circle/link.png")
            entry.external_attr = (kind | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
        assert words in refuse(path, settings, database)


def test_symlinks_in_folders(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    zipfile.ZipFile(make_zip(flat_files)).extractall(folder)
    (folder / "circle" / "link.png").symlink_to(folder / "square" / "0.png")
    assert "symbolic link" in refuse(folder, settings, database)
    (folder / "circle" / "link.png").unlink()
    (folder / "triangle").symlink_to(folder / "square")
    assert "symbolic link" in refuse(folder, settings, database)


def test_encrypted(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    data = bytearray(make_zip(flat_files).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path = settings.data_dir / "encrypted.zip"
    path.write_bytes(data)
    assert "encrypted" in refuse(path, settings, database)


def test_a_compression_that_is_not_usual(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "lzma.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/0.png", image_bytes())
    assert "compression method 14" in refuse(path, settings, database)


def test_an_entry_twice(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    path = make_zip(flat_files)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("circle/0.png", image_bytes())
    assert "'circle/0.png' is in the archive twice" in refuse(path, settings, database)


def test_overlapping_entries(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    """Many names in the table of contents for the same bytes."""
    path = make_zip({"circle/0.png": image_bytes((400, 400))})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    names = [f"circle/{number}.png".encode() for number in range(10)]
    directory = b"".join(entry.replace(b"circle/0.png", name) for name in names)
    record = struct.pack("<LHHHHLLH", 0x06054B50, 0, 0, 10, 10, len(directory), start, 0)
    path.write_bytes(data[:start] + directory + record)
    assert "overlap" in refuse(path, settings, database)


@pytest.mark.parametrize("cut", [0, 1, 100, -30])
def test_cut_off(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, cut: int
) -> None:
    path = make_zip(flat_files)
    path.write_bytes(path.read_bytes()[:cut])
    assert "zip" in refuse(path, settings, database)


def test_a_bad_checksum(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    path = make_zip(flat_files)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    assert "'circle/0.png' is damaged in the archive" in refuse(path, settings, database)


def test_random_damage_is_always_a_dataset_error(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    path = make_zip(flat_files)
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(3):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            dataset, _ = import_dataset(path, settings=settings, database=database)
        except DatasetError:
            assert list(settings.incoming_dir.glob("*")) == []
        else:  # damage where nothing looks, such as a time stamp
            assert dataset.num_images <= 12


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
