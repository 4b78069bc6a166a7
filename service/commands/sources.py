"""Folders, zips and tars of labelled images on this machine as one set of training images.

Classes of the same name are one. They are the user's own, not an upload: how many they are and
how much they take is no reason to refuse them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from service.datasets.containers.container import Container, open_container
from service.datasets.formats.recognize import place
from service.datasets.images import check_image, opened_image
from service.datasets.layout import Layout, Placed, Placement, check_classes, join
from service.datasets.names import name_of
from service.datasets.staging import Progress
from service.datasets.words import counted
from service.errors import BrokenImagesError, DatasetError
from service.settings import Settings
from tinytl.squares import Squaring, to_square

if TYPE_CHECKING:
    import numpy as np

    from tinytl.training.data import Sample

_NO_LIMIT = 1 << 50
_MIN_IMAGES_PER_CLASS = 2
"""One to train on and one to hold out."""
_HELD_OUT_SHARE = 0.1
_MAX_HELD_OUT = 50


class Sources:
    """Open, checked sources: `files` are their images, each under "number of source/path"."""

    def __init__(
        self, names: Sequence[str], opened: Sequence[Container], settings: Settings
    ) -> None:
        self.names = tuple(names)
        self._opened = tuple(opened)
        self._settings = settings
        placements = [
            _placed(name, source) for name, source in zip(self.names, self._opened, strict=True)
        ]
        if not settings.skip_broken:
            astray = {path: why for one in placements for path, why in one.astray.items()}
            if astray:
                raise BrokenImagesError(
                    {path: DatasetError(f"{path!r} {why}") for path, why in astray.items()}
                )
        self._num_test = 0
        self._notes = [note for one in placements for note in one.notes]
        layouts = join(
            [self._without_test(one) for one in placements],
            min_images_per_class=_MIN_IMAGES_PER_CLASS,
        )
        self.classes = layouts[0].classes
        self.files: dict[str, Placed] = {
            f"{number}/{file.path}": file
            for number, layout in enumerate(layouts)
            for file in layout.files
        }

    def _without_test(self, placement: Placement) -> Placement:
        files = tuple(file for file in placement.files if file.split != "test")
        self._num_test += len(placement.files) - len(files)
        return replace(placement, files=files)

    @property
    def has_validation(self) -> bool:
        return any(file.split == "val" for file in self.files.values())

    def samples(self, *, seed: int) -> list[Sample]:
        """The images to train on and to validate with, by their keys.

        Without a validation split some of each class are held out. A test split stays unused.
        """
        from tinytl.training.data import Sample  # imports torch

        labels = {name: label for label, name in enumerate(self.classes)}
        samples = [
            Sample(path=Path(key), label=labels[file.class_name], split=file.split)
            for key, file in self.files.items()
        ]
        return samples if self.has_validation else _hold_out(samples, seed)

    def notes(self) -> list[str]:
        """What is left out, in words."""
        found = list(self._notes)
        if self._num_test:
            found.append(f"{self._num_test} images of the test split are not used")
        return found

    def broken(self, on_progress: Progress) -> dict[str, DatasetError]:
        """Decodes every image; those that can't be, by their keys, each with what is wrong."""
        found: dict[str, DatasetError] = {}
        for index, key in enumerate(self.files):
            try:
                data, path = self._read(key)
                check_image(data, path, self._settings)
            except DatasetError as error:
                found[key] = error
            on_progress(index + 1, len(self.files))
        return found

    def leave_out_broken(self, on_progress: Progress) -> None:
        """Go on without images that can't be decoded. Raises DatasetError where too few are
        left."""
        broken = self.broken(on_progress)
        if not broken:
            return
        self.files = {key: file for key, file in self.files.items() if key not in broken}
        files = tuple(self.files.values())
        self.classes = tuple(sorted({file.class_name for file in files}))
        check_classes(Layout(name=None, classes=self.classes, files=files), _MIN_IMAGES_PER_CLASS)
        sentences = "; ".join(map(str, broken.values()))
        self._notes.append(f"{counted('image', len(broken))} skipped: {sentences}.")

    def sha256(self) -> str:
        """Of what the sources list: splits, classes, names and sizes of the images."""
        digest = hashlib.sha256()
        for key, file in self.files.items():
            number, path = _source_and_path(key)
            line = [file.split, file.class_name, path, self._opened[number].num_bytes(path)]
            digest.update(json.dumps(line).encode() + b"\n")
        return digest.hexdigest()

    def decode(self, key: Path, image_size: int, squaring: Squaring) -> np.ndarray:
        """Upright RGB square, uint8 (3, image_size, image_size). Raises DatasetError."""
        data, path = self._read(key.as_posix())
        with opened_image(data, path, self._settings, side=image_size) as (_, image):
            return to_square(image, image_size, squaring)

    def _read(self, key: str) -> tuple[bytes, str]:
        number, path = _source_and_path(key)
        with self._opened[number].open(path) as stream:
            return stream.read(self._settings.max_image_bytes + 1), path


@contextmanager
def open_sources(paths: Sequence[Path], settings: Settings) -> Iterator[Sources]:
    """Open folders and zips. Raises DatasetError for what is no dataset of images."""
    unlimited = settings.model_copy(
        update={"max_dataset_images": _NO_LIMIT, "max_dataset_bytes": _NO_LIMIT}
    )
    opened: list[Container] = []
    with ExitStack() as stack:
        for number, path in enumerate(paths):
            if path.resolve() in (other.resolve() for other in paths[:number]):
                raise DatasetError(f"{str(path)!r} is given twice; give it once")
            opened.append(stack.enter_context(open_container(path, unlimited)))
        yield Sources([name_of(path) for path in paths], opened, unlimited)


def _placed(name: str, source: Container) -> Placement:
    try:
        return place(source)
    except DatasetError as error:
        raise type(error)(f"{name!r}: {error}") from error


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
