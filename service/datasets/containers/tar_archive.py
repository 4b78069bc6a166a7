"""Reading a tar that a stranger sent, compressed or not.

A compressed one is unpacked to one file first, counted as it comes, so that its members can be
read in any order. tarfile reads the headers only, and never more of them than a name needs.
"""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

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

_Unpacking = gzip.GzipFile | bz2.BZ2File
_OPENERS: dict[bytes, Callable[[BinaryIO], _Unpacking]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": lambda file: bz2.BZ2File(file),
}
"""By how a compressed file begins."""
_OTHERS = {b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
_MAGIC_AT, _MAGIC = 257, b"ustar"
_CHUNK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 16
"""Of one extended header: a name, an owner, times."""
_PER_ENTRY_BYTES = 4_096
"""Headers of an entry and what fills its last block."""
_DAMAGE = (tarfile.TarError, OSError, ValueError, EOFError, zlib.error, OverflowError)


class _Headers(io.RawIOBase):
    """The tar as tarfile sees it: nothing long is read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class TarArchive:
    """An open, checked tar: `paths` are its files, `open` reads one of them."""

    def __init__(self, file: BinaryIO, settings: Settings) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        self._members: dict[str, tarfile.TarInfo] = {}
        self.folders: list[str] = []
        self.leftovers = Leftovers()
        members = list(self._read_headers(settings))
        raw = [member.name.encode("utf-8", "surrogateescape") for member in members]
        for member, name in zip(members, decode_names(raw), strict=True):
            self._add(member, name, settings)
        num_bytes = sum(member.size for member in self._members.values())
        check_totals(len(self._members), num_bytes, settings)

    @property
    def paths(self) -> list[str]:
        return sorted(self._members)

    def num_bytes(self, path: str) -> int:
        return self._members[path].size

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        member = self._members[path]
        self._file.seek(member.offset_data)
        yield io.BytesIO(self._file.read(member.size))

    def _read_headers(self, settings: Settings) -> Iterator[tarfile.TarInfo]:
        self._file.seek(0)
        most = max_entries(settings)
        count = 0
        try:
            with tarfile.open(fileobj=_Headers(self._file), mode="r:") as archive:
                while (member := archive.next()) is not None:
                    count += 1
                    if count > most:
                        raise TooLargeError(
                            f"the archive has more than {most} entries, far more than "
                            f"{settings.max_dataset_images} images need; split the dataset"
                        )
                    yield member
                self._check_end(archive.offset, count)
        except (*_DAMAGE, RecursionError) as error:
            raise DatasetError(f"not a readable tar file ({error}); make the tar again") from error

    def _check_end(self, offset: int, num_members: int) -> None:
        """tarfile takes a damaged header, or no more headers, for the end: that is marked."""
        self._file.seek(offset)
        if self._file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise DatasetError(
                f"the tar is damaged or cut off after {num_members} entries; make or send it again"
            )

    def _add(self, member: tarfile.TarInfo, name: str, settings: Settings) -> None:
        path = safe_path(name)
        if member.issym() or member.islnk():
            raise DatasetError(
                f"entry {name!r} is a link; put the image itself in the tar, as tar does with "
                f"--dereference and --hard-dereference"
            )
        if member.isdir():
            self.folders.append(path.rstrip("/"))
            return
        if not member.isreg() or member.issparse():
            raise DatasetError(f"entry {name!r} is a special file; only images are accepted")
        if self.leftovers.take(path):
            return
        if member.size < 0 or member.offset_data + member.size > self._size:
            raise DatasetError(f"the tar is cut off within {path!r}; make or send it again")
        check_file(path, member.size, settings)
        if path in self._members:
            raise DatasetError(f"{path!r} is in the archive twice; make the tar again")
        self._members[path] = member


@contextmanager
def open_tar(path: Path, settings: Settings, scratch: Path | None) -> Iterator[TarArchive]:
    """Open the tar at path, refusing whatever is broken, hostile or too large. A compressed one
    is unpacked to a nameless file in the folder scratch, or where the system has such files."""
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        opener = _opener(file)
        if opener is not None:
            unpacked = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(dir=scratch)))
            _unpack(file, opener(file), unpacked, settings)
            file = unpacked
        yield TarArchive(file, settings)


def is_tar(path: Path) -> bool:
    """Whether the file is a tar, or compressed as one may be. Raises DatasetError for archives
    of kinds that are not read."""
    with path.open("rb") as file:
        for magic, kind in _OTHERS.items():
            if file.read(len(magic)) == magic:
                raise DatasetError(f"{kind} archives are not read; send a zip, tar or tar.gz")
            file.seek(0)
        if _opener(file) is not None:
            return True
        file.seek(_MAGIC_AT)
        return file.read(len(_MAGIC)) == _MAGIC


def _opener(file: BinaryIO) -> Callable[[BinaryIO], _Unpacking] | None:
    start = file.read(4)
    file.seek(0)
    return next((one for magic, one in _OPENERS.items() if start.startswith(magic)), None)


def _unpack(packed: BinaryIO, stream: _Unpacking, target: BinaryIO, settings: Settings) -> None:
    """Raises DatasetError as soon as there is more than a dataset may have."""
    most = settings.max_dataset_bytes + max_entries(settings) * _PER_ENTRY_BYTES
    num_bytes = 0
    try:
        with stream:
            while chunk := stream.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > most:
                    raise TooLargeError(
                        f"the archive unpacks to more than {format_bytes(most)}; at most "
                        f"{format_bytes(settings.max_dataset_bytes)} of images are accepted"
                    )
                check_ratio("the archive", num_bytes, packed.tell(), settings)
                target.write(chunk)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the data's
            raise
        raise DatasetError(
            f"the archive can't be unpacked ({error}); make or send it again"
        ) from error
