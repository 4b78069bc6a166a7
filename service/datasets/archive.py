"""Reading a zip that a stranger sent: every entry is checked before anything is unpacked.

Nothing is ever written under a name that the archive chose.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from service.datasets.layout import is_junk
from service.errors import DatasetError, TooLargeError
from service.settings import Settings
from tinytl.units import format_bytes

_NESTED = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_DIRECTORY_BYTES_PER_IMAGE = 512
"""In the table of contents: its entry, and that of the file that macOS puts beside it."""
_FOLDERS_PER_CLASS = 4
"""One in each split, and room for those around them."""
_HEADER_BYTES = 46
"""Of an entry in the table of contents, without its name, extra field and comment."""
_MAX_END_BYTES = 22 + 65_536
"""How far from its end zipfile looks for a zip's end record."""
_ZIP64_RECORD_BYTES = 56
_ZIP64_LOCATOR_BYTES = 20
"""Both are right before the end record, the locator last."""
_RATIO_FLOOR_BYTES = 1_000_000
"""Entries smaller than this may compress as they like: they can do no harm."""
_ENCRYPTED = 0x1
_UTF8 = 0x800
_DAMAGE = (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError)
"""What zipfile raises on damaged input."""


class Archive:
    """An open, checked zip: `paths` are its image files, `open` reads one of them."""

    def __init__(
        self, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], num_ignored: int
    ) -> None:
        self._archive = archive
        self._entries = entries
        self.num_ignored = num_ignored
        """Junk files of operating systems."""

    @property
    def paths(self) -> list[str]:
        return sorted(self._entries)

    def num_bytes(self, path: str) -> int:
        return self._entries[path].file_size

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        try:
            with self._archive.open(self._entries[path]) as stream:
                yield stream
        except (*_DAMAGE, zlib.error, EOFError, RuntimeError) as error:
            raise DatasetError(
                f"{path!r} is damaged in the archive ({error}); make the zip again"
            ) from error


@contextmanager
def open_archive(path: Path, settings: Settings) -> Iterator[Archive]:
    """Open the zip at path, refusing whatever is broken, hostile or too large."""
    with path.open("rb") as file:
        _check_directory(file, settings)
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise DatasetError(f"not a readable zip file ({error}); send a zip") from error
        with archive:
            entries, num_ignored = _checked_entries(archive, path.stat().st_size, settings)
            yield Archive(archive, entries, num_ignored)


def _check_directory(file: BinaryIO, settings: Settings) -> None:
    """Refuse a table of contents that would fill the memory, before zipfile reads it whole."""
    end, num_bytes = _find_directory(file)
    if num_bytes > end:
        raise DatasetError(
            f"the archive says that its table of contents has {format_bytes(num_bytes)}, but only "
            f"{format_bytes(end)} are there; make the zip again"
        )
    if num_bytes > settings.max_dataset_images * _DIRECTORY_BYTES_PER_IMAGE:
        raise TooLargeError(
            f"the archive's table of contents has {format_bytes(num_bytes)}, far more than "
            f"{settings.max_dataset_images} images need; split the dataset"
        )
    max_entries = 2 * (settings.max_dataset_images + _FOLDERS_PER_CLASS * settings.max_classes)
    num_entries = 0
    file.seek(end - num_bytes)
    while file.tell() < end:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(b"PK\x01\x02"):
            raise DatasetError("the archive's table of contents is damaged; make the zip again")
        num_entries += 1
        if num_entries > max_entries:
            raise TooLargeError(
                f"the archive has more than {max_entries} entries, far more than "
                f"{settings.max_dataset_images} images need; split the dataset"
            )
        file.seek(sum(struct.unpack_from("<HHH", header, 28)), 1)  # name, extra field, comment


def _find_directory(file: BinaryIO) -> tuple[int, int]:
    """Where the table of contents ends and how many bytes it claims, as zipfile sees it."""
    size = file.seek(0, 2)
    tail_start = file.seek(max(0, size - _MAX_END_BYTES))
    tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + 22 > len(tail):
        raise DatasetError("not a zip file, or cut off; send a zip of class folders")
    (num_bytes,) = struct.unpack_from("<L", tail, found + 12)
    end = tail_start + found
    zip64_start = end - _ZIP64_RECORD_BYTES - _ZIP64_LOCATOR_BYTES
    file.seek(max(0, zip64_start))
    record, locator = file.read(_ZIP64_RECORD_BYTES), file.read(_ZIP64_LOCATOR_BYTES)
    if zip64_start < 0 or not locator.startswith(b"PK\x06\x07"):
        return end, num_bytes
    (offset,) = struct.unpack_from("<Q", locator, 8)
    if offset != zip64_start or not record.startswith(b"PK\x06\x06"):
        raise DatasetError(
            f"the archive says that its zip64 record is at byte {offset}, but its place is byte "
            f"{zip64_start}; make the zip again"
        )
    (num_bytes,) = struct.unpack_from("<Q", record, 40)
    return zip64_start, num_bytes


def _checked_entries(
    archive: zipfile.ZipFile, archive_bytes: int, settings: Settings
) -> tuple[dict[str, zipfile.ZipInfo], int]:
    """The entries of images by path, and how many files are junk."""
    entries: dict[str, zipfile.ZipInfo] = {}
    num_ignored = 0
    for info in archive.infolist():
        path = _safe_path(info)
        if info.is_dir() or path.endswith("/"):
            continue
        if is_junk(tuple(path.split("/"))):
            num_ignored += 1
            continue
        _check_entry(info, path, settings)
        if path in entries:
            raise DatasetError(f"{path!r} is in the archive twice; make the zip again")
        entries[path] = info
    _check_totals(entries, archive_bytes, settings)
    return entries, num_ignored


def _safe_path(info: zipfile.ZipInfo) -> str:
    """The entry's path with forward slashes; refused where it points outside or to a link."""
    name = _name(info)
    path = name.replace("\\", "/")
    parts = path.rstrip("/").split("/")
    if "\0" in name:
        raise DatasetError(f"entry {name!r} has a null byte in its name; make the zip again")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        raise DatasetError(f"entry {name!r} has an absolute path; zip the folder itself")
    if ".." in parts:
        raise DatasetError(f"entry {name!r} points outside the archive; zip the folder itself")
    path = "/".join(part for part in parts if part not in ("", "."))
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise DatasetError(f"entry {name!r} is a symbolic link; put the image itself in the zip")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"entry {name!r} is a special file; only images are accepted")
    return path + "/" if name.endswith(("/", "\\")) else path


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's name. Some zip makers, macOS's among them, write UTF-8 without saying so."""
    if info.flag_bits & _UTF8:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return info.orig_filename


def _check_entry(info: zipfile.ZipInfo, path: str, settings: Settings) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise DatasetError(f"entry {path!r} is encrypted; make the zip without a password")
    if Path(path).suffix.lower() in _NESTED:
        raise DatasetError(f"entry {path!r} is an archive in the archive; unpack it first")
    if info.compress_type not in _METHODS:
        raise DatasetError(
            f"entry {path!r} uses compression method {info.compress_type}; "
            f"make the zip with deflate, as usual"
        )
    if info.file_size > settings.max_image_bytes:
        raise TooLargeError(
            f"entry {path!r} has {format_bytes(info.file_size)}; an image may have at most "
            f"{format_bytes(settings.max_image_bytes)}"
        )
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > _RATIO_FLOOR_BYTES and ratio > settings.max_compression_ratio:
        raise DatasetError(
            f"entry {path!r} unpacks to {ratio:.0f} times its size, as a zip bomb does; "
            f"at most {settings.max_compression_ratio:g} times is accepted"
        )


def _check_totals(
    entries: dict[str, zipfile.ZipInfo], archive_bytes: int, settings: Settings
) -> None:
    unpacked_bytes = sum(info.file_size for info in entries.values())
    if len(entries) > settings.max_dataset_images:
        raise TooLargeError(
            f"the archive has {len(entries)} files; at most {settings.max_dataset_images} are "
            f"accepted"
        )
    if unpacked_bytes > settings.max_dataset_bytes:
        raise TooLargeError(
            f"the archive unpacks to {format_bytes(unpacked_bytes)}; at most "
            f"{format_bytes(settings.max_dataset_bytes)} are accepted"
        )
    if sum(info.compress_size for info in entries.values()) > archive_bytes:
        raise DatasetError("the archive's entries overlap, as a zip bomb's do; make the zip again")
