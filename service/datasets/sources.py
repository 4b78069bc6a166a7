"""Folders and zips of class folders on this machine as one set of training images.

Classes of the same name are one. They are the user's own, not an upload: how many they are and
how much they take is no reason to refuse them.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from service.datasets.archive import Archive, open_archive
from service.datasets.folder import Folder
from service.datasets.images import check_image
from service.datasets.layout import Placed, read_layouts
from service.errors import DatasetError
from service.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from tinytl.data import Sample

_NOTES = frozenset({".json", ".txt", ".csv", ".md"})
"""Files that tell of a dataset are left out."""
_NO_LIMIT = 1 << 50
_MIN_IMAGES_PER_CLASS = 2
"""One to train on and one to hold out."""
_HELD_OUT_SHARE = 0.1
_MAX_HELD_OUT = 50


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
        self._num_notes = sum(len(source.paths) for source in self._opened) - sum(map(len, paths))
        layouts = read_layouts(
            paths, min_images_per_class=_MIN_IMAGES_PER_CLASS, splits=("train", "val")
        )
        self.classes = layouts[0].classes
        self.files: dict[str, Placed] = {
            f"{number}/{file.path}": file
            for number, layout in enumerate(layouts)
            for file in layout.files
        }
        self._num_test = sum(map(len, paths)) - len(self.files)

    @property
    def has_validation(self) -> bool:
        return any(file.split == "val" for file in self.files.values())

    def samples(self, *, seed: int) -> list[Sample]:
        """The images to train on and to validate with, by their keys.

        Without a validation split some of each class are held out. A test split stays unused.
        """
        from tinytl.data import Sample  # imports torch

        labels = {name: label for label, name in enumerate(self.classes)}
        samples = [
            Sample(path=Path(key), label=labels[file.class_name], split=file.split)
            for key, file in self.files.items()
        ]
        return samples if self.has_validation else _hold_out(samples, seed)

    def notes(self) -> list[str]:
        """What is left out, in words."""
        found = []
        if self._num_test:
            found.append(f"{self._num_test} images of the test split are not used")
        if self._num_notes:
            found.append(f"{self._num_notes} files that are no images are left out")
        return found

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
        from tinytl.data import to_square

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
        yield Sources([name_of(path) for path in paths], opened, unlimited)


def name_of(source: Path) -> str:
    """What a folder or zip is called."""
    return source.stem if source.is_file() else source.resolve().name


def _hold_out(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """A tenth of each class's images, one to fifty, become validation images."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        by_class[sample.label].append(index)
    held_out: set[int] = set()
    for label, indices in by_class.items():
        count = min(_MAX_HELD_OUT, max(1, round(_HELD_OUT_SHARE * len(indices))))
        rng = random.Random(f"held out {seed} {label}")
        held_out.update(rng.sample(indices, count))
    return [
        replace(sample, split="val") if index in held_out else sample
        for index, sample in enumerate(samples)
    ]


def _source_and_path(key: str) -> tuple[int, str]:
    number, _, path = key.partition("/")
    return int(number), path
