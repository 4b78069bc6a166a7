"""Datasets: a zip or folder of class folders becomes images under the hash of their content.

On disk a dataset is `datasets/<id>/images/<number>` beside `dataset.json`; the names that the
user gave are only text in that file. It appears by one rename, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError

from service.datasets.archive import open_archive
from service.datasets.folder import Folder
from service.datasets.images import check_image
from service.datasets.layout import Layout, Split, read_layout
from service.datasets.report import Findings
from service.errors import DatasetError, NotFoundError, TooLargeError
from service.record.database import Database, now
from service.record.models import Dataset
from service.schemas import DatasetReport
from service.settings import Settings

MANIFEST = "dataset.json"
_FORMAT = 1
_ID_LENGTH = 32
_STALE_SECONDS = 24 * 3600.0

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


class Source(Protocol):
    """Where a dataset's files come from."""

    @property
    def paths(self) -> list[str]: ...

    @property
    def num_ignored(self) -> int: ...

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]: ...


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One image of a stored dataset; label counts in the order of the classes."""

    path: Path
    label: int
    split: Split


def import_dataset(
    path: Path,
    *,
    settings: Settings,
    database: Database,
    name: str | None = None,
    on_progress: Progress | None = None,
) -> tuple[Dataset, bool]:
    """Store the zip or folder at path; return its row, and whether it is new."""
    if path.is_dir():
        folder = Folder(path, settings)
        return _import(folder, name or path.resolve().name, settings, database, on_progress)
    if not path.is_file():
        raise DatasetError(f"{str(path)!r} does not exist; give a zip or a folder")
    with open_archive(path, settings) as archive:
        return _import(archive, name, settings, database, on_progress)


def get_dataset(database: Database, dataset_id: str) -> Dataset:
    with database.reading() as session:
        dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NotFoundError(f"there is no dataset {dataset_id!r}; POST a zip to /datasets first")
    return dataset


def list_datasets(
    database: Database, *, limit: int | None = None, after: tuple[float, str] | None = None
) -> list[Dataset]:
    """At most limit datasets, newest first, from the one after `after` on: created_at and id."""
    newest_first = select(Dataset).order_by(Dataset.created_at.desc(), Dataset.id.desc())
    if after is not None:
        newest_first = newest_first.where(tuple_(Dataset.created_at, Dataset.id) < tuple_(*after))
    with database.reading() as session:
        return list(session.scalars(newest_first.limit(limit)))


def stored_images(dataset_id: str, settings: Settings) -> list[StoredImage]:
    """The images of a stored dataset, in the order in which they were hashed."""
    directory = settings.datasets_dir / dataset_id
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the files of dataset {dataset_id!r} are gone from {directory}; upload it again"
        ) from error
    return [
        StoredImage(path=directory / entry["file"], label=entry["label"], split=entry["split"])
        for entry in manifest["images"]
    ]


def remove_stale_uploads(settings: Settings) -> None:
    """Remove what uploads that were killed long ago left behind."""
    if settings.incoming_dir.is_dir():
        for path in settings.incoming_dir.iterdir():
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _import(
    source: Source,
    name: str | None,
    settings: Settings,
    database: Database,
    on_progress: Progress | None,
) -> tuple[Dataset, bool]:
    layout = read_layout(source.paths, min_images_per_class=settings.min_images_per_class)
    if len(layout.classes) > settings.max_classes:
        raise TooLargeError(
            f"there are {len(layout.classes)} class folders; at most {settings.max_classes} are "
            f"accepted"
        )
    staging = settings.incoming_dir / uuid.uuid4().hex
    (staging / "images").mkdir(parents=True)
    try:
        dataset_id, num_bytes, report = _copy_images(
            source, layout, staging, settings, on_progress
        )
        _publish(staging, settings.datasets_dir / dataset_id)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    found = Dataset(
        id=dataset_id,
        name=(name or layout.name or "dataset")[:200],
        classes=list(layout.classes),
        counts=layout.counts(),
        num_images=len(layout.files),
        num_bytes=num_bytes,
        report=report.model_dump(mode="json"),
        created_at=now(),
    )
    try:
        return _record(found, database)
    except IntegrityError:  # the same images came twice at once
        return get_dataset(database, dataset_id), False


def _record(found: Dataset, database: Database) -> tuple[Dataset, bool]:
    with database.writing() as session:
        known = session.get(Dataset, found.id)
        if known is not None:
            known.report = known.report or found.report  # it may be from before there were reports
            return known, False
        session.add(found)
        session.flush()
        session.refresh(found)
    return found, True


def _copy_images(
    source: Source,
    layout: Layout,
    staging: Path,
    settings: Settings,
    on_progress: Progress | None,
) -> tuple[str, int, DatasetReport]:
    """Check and copy every image; return the dataset's id, its bytes and what was found."""
    labels = {name: label for label, name in enumerate(layout.classes)}
    digest = hashlib.sha256()
    findings = Findings(layout)
    images: list[dict[str, object]] = []
    num_bytes = 0
    for index, placed in enumerate(layout.files):
        with source.open(placed.path) as stream:
            data = stream.read(settings.max_image_bytes + 1)
        facts = check_image(data, placed.path, settings)
        sha256 = hashlib.sha256(data)
        findings.add(placed, facts, sha256.digest())
        file = f"images/{index:06d}"
        (staging / file).write_bytes(data)
        num_bytes += len(data)
        file_name = placed.path.rsplit("/", 1)[-1]
        line = [placed.split, placed.class_name, file_name, sha256.hexdigest()]
        digest.update(json.dumps(line).encode() + b"\n")
        images.append(
            {
                "file": file,
                "split": placed.split,
                "label": labels[placed.class_name],
                "original": placed.path,
            }
        )
        if on_progress is not None:
            on_progress(index + 1, len(layout.files))
    manifest = {"format": _FORMAT, "classes": list(layout.classes), "images": images}
    (staging / MANIFEST).write_text(json.dumps(manifest))
    report = findings.report(num_ignored=source.num_ignored)
    return digest.hexdigest()[:_ID_LENGTH], num_bytes, report


def _publish(staging: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
