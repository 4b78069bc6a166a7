"""Tars: read as zips are, and as hostile ones refused."""

import bz2
import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service.datasets.store import import_dataset
from service.errors import DatasetError
from service.record.db.database import Database
from service.settings import Settings
from tests.service.datasets.uploads import Files, MakeZip, image_bytes, left_behind, refuse

MakeTar = Callable[..., Path]
PACKERS = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress}


def tar_bytes(files: Files, *members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return stream.getvalue()


@pytest.fixture
def make_tar(tmp_path: Path) -> MakeTar:
    def make(data: bytes, suffix: str = ".tar") -> Path:
        path = tmp_path / f"upload{suffix}"
        path.write_bytes(PACKERS[suffix](data))
        return path

    return make


@pytest.mark.parametrize("suffix", list(PACKERS))
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_the_dataset_that_a_zip_of_the_same_is(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    make_tar: MakeTar,
    flat_files: Files,
    suffix: str,
    form: int,
) -> None:
    long = {f"circle/{'x' * 90}.png": image_bytes()}
    files = {**flat_files, **long, "circle/.DS_Store": b"x"}
    packed = make_tar(tar_bytes(files, form=form), suffix)
    from_tar, _ = import_dataset(packed, settings=settings, database=database)
    from_zip, is_new = import_dataset(make_zip(files), settings=settings, database=database)
    assert (from_tar.id, is_new) == (from_zip.id, False)
    assert from_tar.report is not None
    assert from_tar.report["ignored_files"] == 1
    assert left_behind(settings) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/cat/0.png", "absolute path"),
        ("../cat/0.png", "points outside"),
        ("cat/../../0.png", "points outside"),
        ("circle/more.zip", "archive in the archive"),
        ("circle/0.png", "'circle/0.png' is in the archive twice"),
        ("./circle//0.png", "'circle/0.png' is in the archive twice"),
    ],
)
def test_paths(
    settings: Settings,
    database: Database,
    make_tar: MakeTar,
    flat_files: Files,
    name: str,
    words: str,
) -> None:
    member = tarfile.TarInfo(name)
    assert words in refuse(make_tar(tar_bytes(flat_files, member)), settings, database)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "special file"),
        (tarfile.FIFOTYPE, "special file"),
    ],
)
def test_links_and_devices(
    settings: Settings,
    database: Database,
    make_tar: MakeTar,
    flat_files: Files,
    kind: bytes,
    words: str,
) -> None:
    member = tarfile.TarInfo("circle/link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    assert words in refuse(make_tar(tar_bytes(flat_files, member)), settings, database)


def test_bombs(
    settings: Settings, database: Database, make_tar: MakeTar, flat_files: Files
) -> None:
    flat = make_tar(tar_bytes({**flat_files, "circle/flat.bmp": bytes(3_000_000)}), ".tar.gz")
    assert "as a zip bomb does" in refuse(flat, settings, database)
    limits = {"max_dataset_bytes": 50_000, "max_dataset_images": 1, "max_classes": 2}
    noise = tar_bytes({"circle/0.bmp": random.Random(0).randbytes(4_000_000)})
    refusal = refuse(make_tar(noise, ".tar.gz"), settings.model_copy(update=limits), database)
    assert "unpacks to more than" in refusal


def test_a_header_that_would_fill_the_memory(
    settings: Settings, database: Database, make_tar: MakeTar, flat_files: Files
) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        member = tarfile.TarInfo("long")
        member.type, member.size = kind, 500_000
        header = member.tobuf(tarfile.USTAR_FORMAT)
        data = header + bytes(500_224) + tar_bytes(flat_files)
        assert "a header of" in refuse(make_tar(data), settings, database)


def test_counts_and_sizes(
    settings: Settings, database: Database, make_tar: MakeTar, flat_files: Files
) -> None:
    path = make_tar(tar_bytes(flat_files), ".tar.gz")
    for update, words in (
        ({"max_dataset_images": 11}, "at most 11"),
        ({"max_dataset_bytes": 500}, "at most 500 B"),
        ({"max_image_bytes": 90}, "at most 90 B"),
        ({"max_dataset_images": 1, "max_classes": 2}, "more than 18 entries"),
    ):
        junk = {f"{number}/.x": b"" for number in range(10)}
        packed = make_tar(tar_bytes(flat_files | junk)) if "more" in words else path
        assert words in refuse(packed, settings.model_copy(update=update), database)


@pytest.mark.parametrize("suffix", list(PACKERS))
def test_cut_off(
    settings: Settings, database: Database, make_tar: MakeTar, flat_files: Files, suffix: str
) -> None:
    whole = tar_bytes(flat_files)
    data = PACKERS[suffix](whole)
    num_bytes = whole.rindex(b"square/5.png") if suffix == ".tar" else len(data)
    path = make_tar(b"", ".tar").with_name(f"cut{suffix}")
    for share in (0.3, 0.5, 0.7, 0.9):
        path.write_bytes(data[: int(num_bytes * share)])
        refuse(path, settings, database)


def test_a_damaged_header_is_no_end(
    settings: Settings, database: Database, make_tar: MakeTar, flat_files: Files
) -> None:
    """Python's tarfile stops there without a word, and half of the images would be lost."""
    data = bytearray(tar_bytes(flat_files))
    at = data.index(b"square/0.png")
    data[at] ^= 1
    assert "damaged or cut off after 6 entries" in refuse(make_tar(data), settings, database)
    whole = tar_bytes(flat_files)
    assert "cut off after 6" in refuse(make_tar(whole[:at]), settings, database)


def test_archives_of_other_kinds_are_named(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    for start, kind in ((b"\xfd7zXZ\0", "xz"), (b"7z\xbc\xaf'\x1c", "7z"), (b"Rar!\x1a\7", "rar")):
        path = tmp_path / f"images.{kind}"
        path.write_bytes(start + bytes(100))
        assert f"{kind} archives are not read; send a zip" in refuse(path, settings, database)


def test_random_damage_is_always_a_dataset_error(
    settings: Settings, database: Database, make_tar: MakeTar, flat_files: Files
) -> None:
    generator = random.Random(0)
    for suffix in (".tar", ".tar.gz"):
        whole = tar_bytes(flat_files)
        whole = PACKERS[suffix](whole)
        path = make_tar(b"", suffix)
        for _ in range(30):
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
