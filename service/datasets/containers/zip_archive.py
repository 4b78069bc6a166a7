"""Reading a zip that a stranger sent: every entry is checked before anything is unpacked.

Nothing is ever written under a name that the archive chose.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from service.datasets.containers.checks import (
    check_file,
    check_ratio,
    check_totals,
    max_entries,
    safe_path,
)
from service.datasets.containers.leftovers import Leftovers
from service.datasets.containers.name_encoding import decode_names
from service.errors import DatasetError, TooLargeError
from service.settings import Settings
from tinytl.units import format_bytes

_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_DIRECTORY_BYTES_PER_IMAGE = 512
"""In the table of contents: its entry, and that of the file that macOS puts beside it."""
_HEADER_BYTES = 46
"""Of an entry in the table of contents, without its name, extra field and comment."""
_MAX_END_BYTES = 22 + 65_536
"""How far from its end zipfile looks for a zip's end record."""
_ZIP64_RECORD_BYTES = 56
_ZIP64_LOCATOR_BYTES = 20
"""Both are right before the end record, the locator last."""
_ENCRYPTED = 0x1
_UTF8 = 0x800
_UNICODE_PATH = 0x7075
"""An extra field: the name in UTF-8, and the checksum of the name that it goes with."""
_DAMAGE = (zipfile.BadZipFile, struct.error, OSError, ValueError, NotImplementedError)
"""What zipfile raises on damaged input."""


class ZipArchive:
    """An open, checked zip: `paths` are its files, `open` reads one of them."""

    def __init__(self, archive: zipfile.ZipFile, archive_bytes: int, settings: Settings) -> None:
        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.folders: list[str] = []
        self.leftovers = Leftovers()
        infos = archive.infolist()
        for info, name in zip(infos, _names(infos), strict=True):
            self._add(info, name, settings)
        unpacked_bytes = sum(info.file_size for info in self._entries.values())
        check_totals(len(self._entries), unpacked_bytes, settings)
        if sum(info.compress_size for info in self._entries.values()) > archive_bytes:
            raise DatasetError(
                "the archive's entries overlap, as a zip bomb's do; make the zip again"
            )

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

    def _add(self, info: zipfile.ZipInfo, name: str, settings: Settings) -> None:
        path = safe_path(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise DatasetError(
                f"entry {name!r} is a symbolic link; put the image itself in the zip"
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DatasetError(f"entry {name!r} is a special file; only images are accepted")
        if info.is_dir() or path.endswith("/"):
            self.folders.append(path.rstrip("/"))
            return
        if self.leftovers.take(path):
            return
        _check_entry(info, path, settings)
        if path in self._entries:
            raise DatasetError(f"{path!r} is in the archive twice; make the zip again")
        self._entries[path] = info


@contextmanager
def open_zip(path: Path, settings: Settings) -> Iterator[ZipArchive]:
    """Open the zip at path, refusing whatever is broken, hostile or too large."""
    with path.open("rb") as file:
        _check_directory(file, settings)
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise DatasetError(f"not a readable zip file ({error}); send a zip") from error
        with archive:
            yield ZipArchive(archive, path.stat().st_size, settings)


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
    most = max_entries(settings)
    num_entries = 0
    file.seek(end - num_bytes)
    while file.tell() < end:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(b"PK\x01\x02"):
            raise DatasetError("the archive's table of contents is damaged; make the zip again")
        num_entries += 1
        if num_entries > most:
            raise TooLargeError(
                f"the archive has more than {most} entries, far more than "
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


def _names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The entries' names. Some zip makers, macOS's among them, write UTF-8 without saying so."""
    stated = [_stated_name(info) for info in infos]
    raw = [
        info.orig_filename.encode("cp437")  # as zipfile has read it
        for info, name in zip(infos, stated, strict=True)
        if name is None
    ]
    decoded = iter(decode_names(raw))
    return [next(decoded) if name is None else name for name in stated]


def _stated_name(info: zipfile.ZipInfo) -> str | None:
    """Where the entry says that its name is UTF-8, or has it in UTF-8 beside another."""
    if info.flag_bits & _UTF8:
        return info.orig_filename
    at = 0
    while at + 4 <= len(info.extra):
        kind, size = struct.unpack_from("<HH", info.extra, at)
        body = info.extra[at + 4 : at + 4 + size]
        if kind == _UNICODE_PATH and len(body) > 5 and body[0] == 1:
            (checksum,) = struct.unpack_from("<L", body, 1)
            if checksum == zlib.crc32(info.orig_filename.encode("cp437")):
                return body[5:].decode("utf-8", errors="replace")
        at += 4 + size
    return None


def _check_entry(info: zipfile.ZipInfo, path: str, settings: Settings) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise DatasetError(f"entry {path!r} is encrypted; make the zip without a password")
    if info.compress_type not in _METHODS:
        raise DatasetError(
            f"entry {path!r} uses compression method {info.compress_type}; "
            f"make the zip with deflate, as usual"
        )
    check_file(path, info.file_size, settings)
    check_ratio(f"entry {path!r}", info.file_size, info.compress_size, settings)
