"""Parquet files with images in them, as Hugging Face stores datasets.

Reading them takes pyarrow, which is large, and much code for what a stranger sent. So a process of
its own, whose memory and time are bounded, writes what is in them to a zip of images and tables,
which is then read as any other.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Protocol

from service.datasets.containers.zip_archive import ZipArchive, open_zip
from service.errors import DatasetError
from service.settings import Settings

SUFFIX = ".parquet"
_MAGIC = b"PAR1"
_MAX_SECONDS = 3_600.0


class _Files(Protocol):
    def open(self, path: str) -> AbstractContextManager[IO[bytes]]: ...


class SingleFile:
    """A Parquet file that is in no archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name if path.suffix == SUFFIX else f"upload{SUFFIX}"

    @contextmanager
    def open(self, _: str) -> Iterator[IO[bytes]]:
        with self.path.open("rb") as stream:
            yield stream


def is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@contextmanager
def open_parquet(
    files: _Files, paths: Sequence[str], settings: Settings, scratch: Path | None
) -> Iterator[ZipArchive]:
    """The images of these Parquet files, with their labels. Raises DatasetError."""
    if find_spec("pyarrow") is None:
        raise DatasetError(
            f"{paths[0]!r} is Parquet, which needs pyarrow here: pip install 'tinyfit[parquet]', "
            f"or send the images themselves in class folders"
        )
    with tempfile.TemporaryDirectory(dir=scratch, prefix="parquet-") as directory:
        target = Path(directory) / "images.zip"
        copies = [Path(directory) / f"{number}{SUFFIX}" for number in range(len(paths))]
        for path, copy in zip(paths, copies, strict=True):
            with files.open(path) as stream, copy.open("wb") as file:
                shutil.copyfileobj(stream, file)
        _convert(
            {
                "files": [[str(copy), path] for copy, path in zip(copies, paths, strict=True)],
                "target": str(target),
                "max_images": settings.max_dataset_images,
                "max_image_bytes": settings.max_image_bytes,
                "max_bytes": settings.max_dataset_bytes,
                "max_ratio": settings.max_compression_ratio,
            }
        )
        with open_zip(target, settings) as archive:
            yield archive


def _convert(request: dict[str, object]) -> None:
    command = [sys.executable, "-m", "service.datasets.containers.parquet_child"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DatasetError("the Parquet files take too long to read; split them") from error
    refusal = done.stdout.strip()
    if done.returncode == 0 and not refusal:
        return
    raise DatasetError(
        refusal
        or "the Parquet files are damaged, or unpack to more than a dataset may have; make them "
        "again, with row groups of fewer rows"
    )
