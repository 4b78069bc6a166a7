"""Every image of an upload is checked, looked at and packed, once and in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from service.datasets.containers.container import Container
from service.datasets.image_archive import ImageArchive
from service.datasets.images import opened_image
from service.datasets.layout import Layout, Placed, check_classes
from service.datasets.looks import TILE
from service.datasets.report import Findings
from service.datasets.words import counted
from service.errors import BrokenImagesError, DatasetError, TooLargeError
from service.settings import Settings
from service.views.schemas import DatasetReport
from tinytl.squares import Fit

_ID_LENGTH = 32

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What is to be stored."""

    dataset_id: str
    archive: Path
    num_bytes: int
    """Of all images."""
    layout: Layout
    report: DatasetReport
    contact_sheets: Mapping[Fit, bytes]


class Packing:
    """One upload on its way into the archive. A dataset's id is a hash of what it holds."""

    def __init__(self, container: Container, settings: Settings, archive: Path) -> None:
        self._container = container
        self._settings = settings
        self._archive = archive
        self._digest = hashlib.sha256()
        self._num_bytes = 0

    def pack(
        self, layout: Layout, astray: Mapping[str, str], on_progress: Progress | None
    ) -> Packed:
        """astray: images that belong nowhere, each with why. Raises DatasetError."""
        findings = Findings(layout.files)
        problems: dict[str, DatasetError] = {
            path: DatasetError(f"{path!r} {why}") for path, why in astray.items()
        }
        with ImageArchive(self._archive) as archive:
            for index, placed in enumerate(layout.files):
                try:
                    self._add(placed, archive, findings)
                except DatasetError as error:
                    problems[placed.path] = error
                if on_progress is not None:
                    on_progress(index + 1, len(layout.files))
            archive.close()
        layout = self._without(layout, problems)
        sentences = [str(error) for error in problems.values()]
        num_ignored = layout.num_left_out + self._container.leftovers.count
        return Packed(
            dataset_id=self._digest.hexdigest()[:_ID_LENGTH],
            archive=self._archive,
            num_bytes=self._num_bytes,
            layout=layout,
            report=findings.report(layout, num_ignored=num_ignored, skipped=sentences),
            contact_sheets=findings.contact_sheets(),
        )

    def _add(self, placed: Placed, archive: ImageArchive, findings: Findings) -> None:
        with self._container.open(placed.path) as stream:
            data = stream.read(self._settings.max_image_bytes + 1)
        sha256 = hashlib.sha256(data)
        with opened_image(data, placed.path, self._settings, side=TILE) as (facts, image):
            findings.add(placed, facts, image, sha256.digest())
        archive.add(data, placed)
        self._num_bytes += len(data)
        file_name = placed.path.rsplit("/", 1)[-1]
        line = [placed.split, placed.class_name, file_name, sha256.hexdigest()]
        self._digest.update(json.dumps(line).encode() + b"\n")

    def _without(self, layout: Layout, problems: Mapping[str, DatasetError]) -> Layout:
        """The layout without images that can't be used, where that is wished. Raises
        BrokenImagesError where it is not, DatasetError where too few are left."""
        if not problems:
            return layout
        if not self._settings.skip_broken:
            raise _broken(problems)
        files = tuple(file for file in layout.files if file.path not in problems)
        classes = tuple(sorted({file.class_name for file in files}))
        left = replace(layout, files=files, classes=classes)
        try:
            check_classes(left, self._settings.min_images_per_class)
        except DatasetError as error:
            raise DatasetError(
                f"{counted('image', len(problems))} can't be used, and without: {error}"
            ) from error
        return left


def _broken(problems: Mapping[str, DatasetError]) -> DatasetError:
    if all(isinstance(error, TooLargeError) for error in problems.values()):
        return TooLargeError("; ".join(map(str, problems.values())))
    return BrokenImagesError(problems)
