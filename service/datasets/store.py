"""Datasets: a zip or folder of class folders becomes images under the hash of their content, in
the artifact store. Those of versions before there was one lie in folders, `datasets/<id>/`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError

from service.datasets.archive import open_archive
from service.datasets.folder import Folder
from service.datasets.image_archive import ImageArchive, StoredImage, read_manifest, unpack
from service.datasets.images import check_image
from service.datasets.layout import Layout, read_layout
from service.datasets.names import one_line
from service.datasets.report import Findings
from service.errors import (
    BlobError,
    BlobGoneError,
    ConflictError,
    DatasetError,
    NotFoundError,
    TooLargeError,
)
from service.record.artifacts import remove
from service.record.blobs import Blobs, open_blobs, refer
from service.record.database import Database, now
from service.record.models import Dataset, Job
from service.schemas import DatasetReport
from service.settings import Settings

_ID_LENGTH = 32
_NAMED_JOBS = 3
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
        raise _not_found(dataset_id)
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


@contextmanager
def unpacked_images(
    dataset: Dataset, settings: Settings, blobs: Blobs, scratch: Path
) -> Iterator[list[StoredImage]]:
    """The images of a dataset as files, in the order in which they were hashed; unpacked in the
    folder scratch, which goes again. Raises NotFoundError where they are gone, or damaged."""
    try:
        try:
            if dataset.blob_sha256 is None:
                images = read_manifest(settings.datasets_dir / dataset.id)
            else:
                archive = scratch / "images.zip"
                blobs.fetch(dataset.blob_sha256, archive)
                unpack(archive, scratch)
                archive.unlink()
                images = read_manifest(scratch)
        except (FileNotFoundError, BlobError) as error:
            raise NotFoundError(
                f"the images of dataset {dataset.id!r} are gone ({error}); upload it again"
            ) from error
        yield images
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def delete_dataset(database: Database, settings: Settings, dataset_id: str) -> None:
    """Remove a dataset that no job is over. Raises NotFoundError and ConflictError."""
    with database.writing() as session:
        dataset = session.get(Dataset, dataset_id, with_for_update=True)
        if dataset is None:
            raise _not_found(dataset_id)
        over_it = select(Job.id).where(Job.dataset_id == dataset_id).order_by(Job.created_at)
        jobs = session.scalars(over_it.limit(_NAMED_JOBS + 1)).all()
        if jobs:
            named = ", ".join(jobs[:_NAMED_JOBS]) + (" ..." if len(jobs) > _NAMED_JOBS else "")
            raise ConflictError(
                f"dataset {dataset_id!r} belongs to jobs that are there ({named}); delete them "
                f"first"
            )
        session.delete(dataset)
    shutil.rmtree(settings.datasets_dir / dataset_id, ignore_errors=True)


def remove_stale_uploads(settings: Settings) -> None:
    """Remove what uploads that were killed long ago left behind."""
    if settings.incoming_dir.is_dir():
        for path in settings.incoming_dir.iterdir():
            with suppress(FileNotFoundError):  # its own process, or another sweep, was first
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    remove(path)


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
    staging.mkdir(parents=True)
    archive = staging / "images.zip"
    try:
        dataset_id, num_bytes, report = _pack(source, layout, archive, settings, on_progress)
        found = Dataset(
            id=dataset_id,
            name=one_line(name or layout.name or "")[:200] or "dataset",
            classes=list(layout.classes),
            counts=layout.counts(),
            num_images=len(layout.files),
            num_bytes=num_bytes,
            report=report.model_dump(mode="json"),
            created_at=now(),
        )
        return _store(found, archive, settings, database)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _store(
    found: Dataset, archive: Path, settings: Settings, database: Database
) -> tuple[Dataset, bool]:
    blobs = open_blobs(settings, database)
    while True:
        with database.reading() as session:
            known = session.get(Dataset, found.id)
        known_sha256 = known.blob_sha256 if known is not None else None
        if known_sha256 is None:
            found.blob_sha256 = blobs.keep(archive)
        elif not blobs.is_intact(known_sha256):
            found.blob_sha256 = blobs.keep(archive, damaged={known_sha256})
        try:
            dataset, is_new = _record(found, database)
        except BlobGoneError:  # collected in between
            continue
        except IntegrityError:  # the same images came twice at once
            return get_dataset(database, found.id), False
        if dataset.blob_sha256 is not None:
            shutil.rmtree(settings.datasets_dir / dataset.id, ignore_errors=True)
        return dataset, is_new


def _record(found: Dataset, database: Database) -> tuple[Dataset, bool]:
    with database.writing() as session:
        if found.blob_sha256 is not None:
            refer(session, found.blob_sha256)
        known = session.get(Dataset, found.id)
        if known is not None:
            known.report = known.report or found.report  # it may be from before there were reports
            known.blob_sha256 = found.blob_sha256 or known.blob_sha256
            return known, False
        if found.blob_sha256 is None:  # deleted in between
            raise BlobGoneError(f"dataset {found.id!r} is not in the artifact store any more")
        session.add(found)
        session.flush()
        session.refresh(found)
    return found, True


def _pack(
    source: Source,
    layout: Layout,
    archive: Path,
    settings: Settings,
    on_progress: Progress | None,
) -> tuple[str, int, DatasetReport]:
    """Check and pack every image; return the dataset's id, its bytes and what was found."""
    labels = {name: label for label, name in enumerate(layout.classes)}
    digest = hashlib.sha256()
    findings = Findings(layout)
    num_bytes = 0
    with ImageArchive(archive, layout.classes) as packed:
        for index, placed in enumerate(layout.files):
            with source.open(placed.path) as stream:
                data = stream.read(settings.max_image_bytes + 1)
            facts = check_image(data, placed.path, settings)
            sha256 = hashlib.sha256(data)
            findings.add(placed, facts, sha256.digest())
            packed.add(
                data,
                split=placed.split,
                label=labels[placed.class_name],
                original=placed.path,
            )
            num_bytes += len(data)
            file_name = placed.path.rsplit("/", 1)[-1]
            line = [placed.split, placed.class_name, file_name, sha256.hexdigest()]
            digest.update(json.dumps(line).encode() + b"\n")
            if on_progress is not None:
                on_progress(index + 1, len(layout.files))
        packed.close()
    report = findings.report(num_ignored=source.num_ignored)
    return digest.hexdigest()[:_ID_LENGTH], num_bytes, report


def _not_found(dataset_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no dataset {dataset_id!r}; GET /datasets lists those that there are"
    )
