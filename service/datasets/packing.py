"""A folder becomes a zip for its upload: the same images give the same bytes."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.datasets.containers.folder import Walk
from service.datasets.containers.parquet import is_parquet
from service.datasets.containers.tar_archive import is_tar
from service.errors import DatasetError

_PERMISSIONS = 0o644


@contextmanager
def packed(path: Path) -> Iterator[Path]:
    """The archive at path, or a temporary zip of the folder at path. Raises DatasetError."""
    if path.is_file():
        if not (zipfile.is_zipfile(path) or is_tar(path) or is_parquet(path)):
            raise DatasetError(f"{str(path)!r} is no zip or tar; give a zip, a tar or a folder")
        yield path
        return
    if not path.is_dir():
        raise DatasetError(f"{str(path)!r} does not exist; give a zip, a tar or a folder")
    with tempfile.TemporaryDirectory(prefix="tinyfit-") as directory:
        archive = Path(directory) / "images.zip"
        pack(path, archive)
        yield archive


def pack(folder: Path, target: Path) -> None:
    """Write the folder's files to target, leftovers left out. Images hardly compress: they are
    not."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        walk = Walk(folder)
        names = dict(walk.files())
        if not names:
            raise DatasetError(f"no images found in {str(folder)!r}; expected class/image.jpg")
        for name, path in sorted(names.items()):
            entry = zipfile.ZipInfo(name)  # of 1980, whatever the file's own time
            entry.external_attr = _PERMISSIONS << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as packed_file:
                shutil.copyfileobj(source, packed_file)
