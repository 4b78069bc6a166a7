"""A folder on this machine as the source of a dataset, under the rules that a zip is under."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from service.datasets.layout import is_junk
from service.errors import DatasetError, TooLargeError
from service.settings import Settings
from tinytl.units import format_bytes


class Folder:
    """An open, checked folder: `paths` are its image files, `open` reads one of them."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root = root
        self._sizes: dict[str, int] = {}
        for path in walk(root):
            self._sizes[path.relative_to(root).as_posix()] = path.stat().st_size
            if len(self._sizes) > settings.max_dataset_images:
                raise TooLargeError(
                    f"{str(root)!r} has more than {settings.max_dataset_images} files; split it"
                )
        total_bytes = sum(self._sizes.values())
        if total_bytes > settings.max_dataset_bytes:
            raise TooLargeError(
                f"{str(root)!r} has {format_bytes(total_bytes)}; at most "
                f"{format_bytes(settings.max_dataset_bytes)} are accepted"
            )
        for name, num_bytes in self._sizes.items():
            if num_bytes > settings.max_image_bytes:
                raise TooLargeError(
                    f"{name!r} has {format_bytes(num_bytes)}; an image may have at most "
                    f"{format_bytes(settings.max_image_bytes)}"
                )

    @property
    def paths(self) -> list[str]:
        return sorted(self._sizes)

    def num_bytes(self, path: str) -> int:
        return self._sizes[path]

    @property
    def num_ignored(self) -> int:
        """Junk files of operating systems, those in junk folders included."""
        return sum(
            is_junk((*Path(directory).relative_to(self._root).parts, name))
            for directory, _, files in os.walk(self._root)
            for name in files
        )

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        try:
            with (self._root / path).open("rb") as stream:
                yield stream
        except OSError as error:
            raise DatasetError(f"can't read {path!r}: {error.strerror}") from error


def walk(root: Path) -> Iterator[Path]:
    """The files below root in a fixed order, junk left out. Raises DatasetError for links, for
    names that are no text, and for folders that can't be read."""

    def fail(error: OSError) -> None:
        raise DatasetError(f"can't read {str(error.filename)!r}: {error.strerror}") from error

    for directory, folders, files in os.walk(root, onerror=fail, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_junk((name,)))
        for name in [*folders, *sorted(files)]:
            path = Path(directory) / name
            if is_junk((name,)):
                continue
            if name.encode(errors="replace").decode() != name:  # bytes that are not UTF-8
                raise DatasetError(f"the name of {str(path)!r} is not UTF-8; rename it")
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise DatasetError(
                    f"{str(path)!r} is a symbolic link; put the image itself in the folder"
                )
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise DatasetError(f"{str(path)!r} is a special file; only images are accepted")
