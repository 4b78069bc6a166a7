"""Datasets: a zip or folder of class folders becomes images under the hash of their content.

On disk a dataset is `datasets/<id>/images/<number>` beside `dataset.json`; the names that the
user gave are only text in that file. It appears by one rename, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import select

from service.database import Database, now
from service.dataset_archive import open_archive
from service.dataset_images import check_image
from service.dataset_layout import Layout, Split, is_junk, read_layout
from service.errors import DatasetError, NotFoundError, TooLargeError
from service.models import Dataset
from service.settings import Settings
from tinytl.units import format_bytes

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

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]: ...


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One image of a stored dataset; label counts in the order of the classes."""

    path: Path
    label: int
    split: Split


class Folder:
    """A folder on this machine, under the rules that a zip is under."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._root = root
        self._sizes: dict[str, int] = {}
        for path in _walk(root):
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

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        try:
            with (self._root / path).open("rb") as stream:
                yield stream
        except OSError as error:
            raise DatasetError(f"can't read {path!r}: {error.strerror}") from error


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


def list_datasets(database: Database) -> list[Dataset]:
    with database.reading() as session:
        newest_first = select(Dataset).order_by(Dataset.created_at.desc(), Dataset.id)
        return list(session.scalars(newest_first))


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
        dataset_id, num_bytes = _copy_images(source, layout, staging, settings, on_progress)
        _publish(staging, settings.datasets_dir / dataset_id)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    with database.writing() as session:
        known = session.get(Dataset, dataset_id)
        if known is not None:
            return known, False
        dataset = Dataset(
            id=dataset_id,
            name=(name or layout.name or "dataset")[:200],
            classes=list(layout.classes),
            counts=layout.counts(),
            num_images=len(layout.files),
            num_bytes=num_bytes,
            created_at=now(),
        )
        session.add(dataset)
        session.flush()
        session.refresh(dataset)
    return dataset, True


def _copy_images(
    source: Source,
    layout: Layout,
    staging: Path,
    settings: Settings,
    on_progress: Progress | None,
) -> tuple[str, int]:
    """Check and copy every image; return the dataset's id and its bytes."""
    labels = {name: label for label, name in enumerate(layout.classes)}
    digest = hashlib.sha256()
    images: list[dict[str, object]] = []
    num_bytes = 0
    for index, placed in enumerate(layout.files):
        with source.open(placed.path) as stream:
            data = stream.read(settings.max_image_bytes + 1)
        check_image(data, placed.path, settings)
        file = f"images/{index:06d}"
        (staging / file).write_bytes(data)
        num_bytes += len(data)
        file_name = placed.path.rsplit("/", 1)[-1]
        line = [placed.split, placed.class_name, file_name, hashlib.sha256(data).hexdigest()]
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
    return digest.hexdigest()[:_ID_LENGTH], num_bytes


def _publish(staging: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise


def _walk(root: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_junk((name,)))
        for name in [*folders, *sorted(files)]:
            path = Path(directory) / name
            if is_junk((name,)):
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise DatasetError(
                    f"{str(path)!r} is a symbolic link; put the image itself in the folder"
                )
            if stat.S_ISREG(mode):
                yield path
            elif not stat.S_ISDIR(mode):
                raise DatasetError(f"{str(path)!r} is a special file; only images are accepted")
