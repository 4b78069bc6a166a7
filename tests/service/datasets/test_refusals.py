"""Uploads that are hostile, damaged or too large, and what is nearly so."""

import errno
import os
import random
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from service.datasets.containers.folder import Walk
from service.datasets.store import import_dataset
from service.errors import DatasetError, TooLargeError
from service.record.db.database import Database
from service.settings import Settings
from tests.service.datasets.uploads import Files, MakeZip, image_bytes, refuse


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


def test_a_folder_that_can_not_be_read_is_not_left_out(
    make_zip: MakeZip, flat_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    zipfile.ZipFile(make_zip(flat_files)).extractall(folder)
    listdir = os.listdir

    def refuse_one(path: Any) -> Any:
        if Path(path).name == "square":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse_one)
    with pytest.raises(DatasetError, match=r"can't read .*square': Permission denied"):
        list(Walk(folder).files())


def test_links_in_ones_own_folder_are_followed_but_not_in_a_circle(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files, tmp_path: Path
) -> None:
    real, folder = tmp_path / "real", tmp_path / "folder"
    zipfile.ZipFile(make_zip(flat_files)).extractall(real)
    (folder / "circle").mkdir(parents=True)
    for path in (real / "circle").iterdir():
        (folder / "circle" / path.name).symlink_to(path)
    (folder / "square").symlink_to(real / "square")
    (folder / "circle" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert "nowhere.png' is a link that leads nowhere" in refuse(folder, settings, database)
    (folder / "circle" / "nowhere.png").unlink()
    (folder / "round").symlink_to(folder)
    assert "link to a folder that it is in" in refuse(folder, settings, database)
    (folder / "round").unlink()
    linked, _ = import_dataset(folder, settings=settings, database=database)
    direct, is_new = import_dataset(real, settings=settings, database=database)
    assert (linked.id, is_new) == (direct.id, False)


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
