"""What holds a dataset's files: a zip, a tar, a folder, or a Parquet file turned into a zip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from service.datasets.containers.folder import Folder
from service.datasets.containers.leftovers import Leftovers, looks_like_image
from service.datasets.containers.parquet import SUFFIX, SingleFile, is_parquet, open_parquet
from service.datasets.containers.tar_archive import is_tar, open_tar
from service.datasets.containers.zip_archive import open_zip
from service.errors import DatasetError
from service.settings import Settings


class Container(Protocol):
    """Files by their paths, which are checked text with forward slashes; nothing is unpacked."""

    folders: list[str]
    """Those that are named, empty ones too."""
    leftovers: Leftovers

    @property
    def paths(self) -> list[str]:
        """Of all files but leftovers, sorted."""

    def num_bytes(self, path: str) -> int: ...

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]: ...


@contextmanager
def open_container(
    path: Path, settings: Settings, *, scratch: Path | None = None
) -> Iterator[Container]:
    """Open the zip, tar, folder or Parquet file at path; scratch is a folder for what has to be
    unpacked.

    Raises DatasetError for what is none, and for what is broken, hostile or too large.
    """
    if path.is_file() and is_parquet(path):
        file = SingleFile(path)
        with open_parquet(file, [file.name], settings, scratch) as images:
            yield images
        return
    with _opened(path, settings, scratch) as container:
        paths = container.paths
        tables = [one for one in paths if one.lower().endswith(SUFFIX)]
        if not tables or any(looks_like_image(one) for one in paths):
            yield container
            return
        with open_parquet(container, tables, settings, scratch) as images:
            yield images


@contextmanager
def _opened(path: Path, settings: Settings, scratch: Path | None) -> Iterator[Container]:
    if path.is_dir():
        yield Folder(path, settings)
    elif not path.is_file():
        raise DatasetError(f"{str(path)!r} does not exist; give a zip, a tar or a folder")
    elif is_tar(path):
        with open_tar(path, settings, scratch) as tar:
            yield tar
    else:
        with open_zip(path, settings) as archive:
            yield archive
