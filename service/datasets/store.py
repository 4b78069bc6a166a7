"""Datasets: labelled images in a zip, tar or folder, stored under the hash of their content in the
artifact store. Those of versions before there was one lie in folders, `datasets/<id>/`.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import delete, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.datasets.containers.container import Container, open_container
from service.datasets.formats.recognize import place
from service.datasets.image_archive import StoredImage, read_manifest, unpack
from service.datasets.layout import join
from service.datasets.names import one_line
from service.datasets.staging import Packed, Packing, Progress
from service.errors import (
    BlobError,
    BlobGoneError,
    ConflictError,
    NotFoundError,
    TooLargeError,
)
from service.record.db.database import Database, now
from service.record.db.models import ContactSheet, Dataset, Job
from service.record.files.artifacts import remove
from service.record.files.blobs import Blobs, open_blobs, refer
from service.settings import Settings
from tinytl.squares import Fit

_NAMED_JOBS = 3
_STALE_SECONDS = 24 * 3600.0


def import_dataset(
    path: Path,
    *,
    settings: Settings,
    database: Database,
    name: str | None = None,
    on_progress: Progress | None = None,
) -> tuple[Dataset, bool]:
    """Store the zip, tar or folder at path; return its row, and whether it is new.

    Raises DatasetError for what is no dataset; of images that can't be used it names all, unless
    settings.skip_broken says to go on without them.
    """
    if path.is_dir():
        name = name or path.resolve().name
    settings.incoming_dir.mkdir(parents=True, exist_ok=True)
    with open_container(path, settings, scratch=settings.incoming_dir) as container:
        return _import(container, name, settings, database, on_progress)


def get_dataset(database: Database, dataset_id: str) -> Dataset:
    with database.reading() as session:
        dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise _not_found(dataset_id)
    return dataset


def get_contact_sheet(database: Database, dataset_id: str, fit: str | None) -> bytes:
    """A JPEG of some of the dataset's images as the fit shows them; None is the report's own.
    Raises NotFoundError."""
    dataset = get_dataset(database, dataset_id)
    wanted = fit or (dataset.report or {}).get("fit") or ""
    with database.reading() as session:
        sheet = session.get(ContactSheet, (dataset_id, wanted))
    if sheet is None:
        raise NotFoundError(
            f"dataset {dataset_id!r} is of an earlier version and has no contact sheet yet; a "
            f"worker makes it within the hour, uploading it again makes it now"
        )
    return sheet.jpeg


def set_sheets(session: Session, dataset_id: str, sheets: Mapping[Fit, bytes]) -> None:
    for fit, jpeg in sheets.items():
        session.merge(ContactSheet(dataset_id=dataset_id, fit=fit, jpeg=jpeg))


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
        session.execute(delete(ContactSheet).where(ContactSheet.dataset_id == dataset_id))
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
    container: Container,
    name: str | None,
    settings: Settings,
    database: Database,
    on_progress: Progress | None,
) -> tuple[Dataset, bool]:
    placement = place(container)
    (layout,) = join([placement], min_images_per_class=settings.min_images_per_class)
    if len(layout.classes) > settings.max_classes:
        raise TooLargeError(
            f"there are {len(layout.classes)} class folders; at most {settings.max_classes} are "
            f"accepted"
        )
    staging = settings.incoming_dir / uuid.uuid4().hex
    staging.mkdir(parents=True)
    try:
        packing = Packing(container, settings, staging / "images.zip")
        packed = packing.pack(layout, placement.astray, on_progress)
        found = Dataset(
            id=packed.dataset_id,
            name=one_line(name or layout.name or "")[:200] or "dataset",
            classes=list(packed.layout.classes),
            counts=packed.layout.counts(),
            num_images=len(packed.layout.files),
            num_bytes=packed.num_bytes,
            report=packed.report.model_dump(mode="json"),
            created_at=now(),
        )
        return _store(found, packed, settings, database)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _store(
    found: Dataset, packed: Packed, settings: Settings, database: Database
) -> tuple[Dataset, bool]:
    archive = packed.archive
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
            dataset, is_new = _record(found, packed, database)
        except BlobGoneError:  # collected in between
            continue
        except IntegrityError:  # the same images came twice at once
            return get_dataset(database, found.id), False
        if dataset.blob_sha256 is not None:
            shutil.rmtree(settings.datasets_dir / dataset.id, ignore_errors=True)
        return dataset, is_new


def _record(found: Dataset, packed: Packed, database: Database) -> tuple[Dataset, bool]:
    """A known dataset is reported anew: of the same images another archive may tell otherwise."""
    with database.writing() as session:
        if found.blob_sha256 is not None:
            refer(session, found.blob_sha256)
        known = session.get(Dataset, found.id)
        if known is not None:
            known.report = found.report
            set_sheets(session, known.id, packed.contact_sheets)
            known.blob_sha256 = found.blob_sha256 or known.blob_sha256
            return known, False
        if found.blob_sha256 is None:  # deleted in between
            raise BlobGoneError(f"dataset {found.id!r} is not in the artifact store any more")
        session.add(found)
        session.flush()
        set_sheets(session, found.id, packed.contact_sheets)
        session.refresh(found)
    return found, True


def _not_found(dataset_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no dataset {dataset_id!r}; GET /datasets lists those that there are"
    )
