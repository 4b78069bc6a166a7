"""Folders and zips of class folders on this machine as one set of training images.

Classes of the same name are one. They are the user's own, not an upload: how many they are and
how much they take is no reason to refuse them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from service.datasets.archive import Archive, open_archive
from service.datasets.folder import Folder
from service.datasets.images import check_image
from service.datasets.layout import Placed, Split, read_layouts
from service.errors import DatasetError
from service.settings import Settings

if TYPE_CHECKING:
    import numpy as np

_NOTES = frozenset({".json", ".txt", ".csv", ".md"})
"""Files that tell of a dataset are left out."""
_NO_LIMIT = 1 << 50
_MIN_IMAGES_PER_CLASS = 2
"""One to train on and one to hold out."""


class Sources:
    """Open, checked sources: `files` are their images, each under "number of source/path"."""

    def __init__(
        self, names: Sequence[str], opened: Sequence[Folder | Archive], settings: Settings
    ) -> None:
        self.names = tuple(names)
        self._opened = tuple(opened)
        self._settings = settings
        paths = [
            [path for path in source.paths if PurePosixPath(path).suffix.lower() not in _NOTES]
            for source in self._opened
        ]
        for name, of_source in zip(self.names, paths, strict=True):
            if not of_source:
                raise DatasetError(f"{name!r} has no images; expected class/image.jpg in it")
        self.num_notes = sum(len(source.paths) for source in self._opened) - sum(map(len, paths))
        layouts = read_layouts(paths, min_images_per_class=_MIN_IMAGES_PER_CLASS)
        self.classes = layouts[0].classes
        self.files: dict[str, Placed] = {
            f"{number}/{file.path}": file
            for number, layout in enumerate(layouts)
            for file in layout.files
        }

    def counts(self) -> Counter[Split]:
        return Counter(file.split for file in self.files.values())

    def sha256(self) -> str:
        """Of what the sources list: splits, classes, names and sizes of the images."""
        digest = hashlib.sha256()
        for key, file in self.files.items():
            number, path = _source_and_path(key)
            line = [file.split, file.class_name, path, self._opened[number].num_bytes(path)]
            digest.update(json.dumps(line).encode() + b"\n")
        return digest.hexdigest()

    def decode(self, key: Path, image_size: int) -> np.ndarray:
        """Upright RGB square, uint8 (3, image_size, image_size). Raises DatasetError."""
        from tinytl.data import to_square  # imports torch

        number, path = _source_and_path(key.as_posix())
        with self._opened[number].open(path) as stream:
            data = stream.read(self._settings.max_image_bytes + 1)
        check_image(data, path, self._settings)
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * image_size, 2 * image_size))
            return to_square(image, image_size)


@contextmanager
def open_sources(paths: Sequence[Path], settings: Settings) -> Iterator[Sources]:
    """Open folders and zips. Raises DatasetError for what is no dataset of images."""
    unlimited = settings.model_copy(
        update={"max_dataset_images": _NO_LIMIT, "max_dataset_bytes": _NO_LIMIT}
    )
    opened: list[Folder | Archive] = []
    with ExitStack() as stack:
        for number, path in enumerate(paths):
            if path.resolve() in (other.resolve() for other in paths[:number]):
                raise DatasetError(f"{str(path)!r} is given twice; give it once")
            if path.is_dir():
                opened.append(Folder(path, unlimited))
            elif path.is_file():
                opened.append(stack.enter_context(open_archive(path, unlimited)))
            else:
                raise DatasetError(f"{str(path)!r} does not exist; give a zip or a folder")
        names = [path.stem if path.is_file() else path.resolve().name for path in paths]
        yield Sources(names, opened, unlimited)


def _source_and_path(key: str) -> tuple[int, str]:
    number, _, path = key.partition("/")
    return int(number), path
