"""A folder on this machine as the source of a dataset, under the rules that an archive is under.

It is the user's own, so links in it are followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from service.datasets.containers.checks import check_file
from service.datasets.containers.leftovers import Leftovers
from service.errors import DatasetError, TooLargeError
from service.settings import Settings
from tinytl.units import format_bytes


class Folder:
    """An open, checked folder: `paths` are its files, `open` reads one of them."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root = root
        self._sizes: dict[str, int] = {}
        walk = Walk(root)
        for path, file in walk.files():
            self._sizes[path] = file.stat().st_size
            if len(self._sizes) > settings.max_dataset_images:
                raise TooLargeError(
                    f"{str(root)!r} has more than {settings.max_dataset_images} files; split it"
                )
        self.folders, self.leftovers = walk.folders, walk.leftovers
        total_bytes = sum(self._sizes.values())
        if total_bytes > settings.max_dataset_bytes:
            raise TooLargeError(
                f"{str(root)!r} has {format_bytes(total_bytes)}; at most "
                f"{format_bytes(settings.max_dataset_bytes)} are accepted"
            )
        for name, num_bytes in self._sizes.items():
            check_file(name, num_bytes, settings)

    @property
    def paths(self) -> list[str]:
        return sorted(self._sizes)

    def num_bytes(self, path: str) -> int:
        return self._sizes[path]

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        try:
            with (self._root / path).open("rb") as stream:
                yield stream
        except OSError as error:
            raise DatasetError(f"can't read {path!r}: {error.strerror}") from error


class Walk:
    """Goes through a folder once: `files` yields what there is, the rest is known afterwards."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folders: list[str] = []
        self.leftovers = Leftovers()

    def files(self) -> Iterator[tuple[str, Path]]:
        """Files in a fixed order, each with its path below the root; leftovers are left out.

        Raises DatasetError for links that lead nowhere or back, for names that are no text, and
        for what can't be read.
        """
        yield from self._files(self._root, (), ())

    def _files(
        self, folder: Path, parts: tuple[str, ...], above: tuple[Path, ...]
    ) -> Iterator[tuple[str, Path]]:
        real = folder.resolve()
        if real in above:
            raise DatasetError(f"{str(folder)!r} is a link to a folder that it is in; remove it")
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise DatasetError(f"can't read {str(folder)!r}: {error.strerror}") from error
        for name in names:
            path, entry = "/".join((*parts, name)), folder / name
            mode = self._mode(entry, path)
            if stat.S_ISDIR(mode):
                if not self.leftovers.is_one(path):
                    self.folders.append(path)
                yield from self._files(entry, (*parts, name), (*above, real))
            elif self.leftovers.take(path):
                continue
            elif stat.S_ISREG(mode):
                yield path, entry
            else:
                raise DatasetError(f"{str(entry)!r} is a special file; only images are accepted")

    def _mode(self, entry: Path, path: str) -> int:
        is_left_out = self.leftovers.is_one(path)
        if not is_left_out and entry.name.encode(errors="replace").decode() != entry.name:
            raise DatasetError(f"the name of {str(entry)!r} is not UTF-8; rename it")
        try:
            return entry.stat().st_mode
        except OSError as error:
            if is_left_out:
                return stat.S_IFREG
            if entry.is_symlink():
                raise DatasetError(
                    f"{str(entry)!r} is a link that leads nowhere ({error.strerror}); remove it"
                ) from error
            raise DatasetError(f"can't read {str(entry)!r}: {error.strerror}") from error
