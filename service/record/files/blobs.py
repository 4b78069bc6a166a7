"""Blobs: contents in the artifact store, by their SHA-256, with a row for each.

Why none that is needed is ever lost, and none that is not stays for ever:

1. A writer first inserts the row, under a new random key, or touches the row that is there: that
   is its *pending reference*. Then it puts the object, then says that it is stored, and last adds
   the row that refers to the blob, with the blob's row locked: a blob that has gone meanwhile is
   noticed there (`refer`), and kept again. So what a row refers to is stored.
2. The collector deletes a blob's row, locked, where no row refers to it and nobody has touched it
   within the grace period, or where its only user has put another in its place. The commit is the
   decision: a touch or a reference comes before it, and is seen, or after it, and finds no row.
   Objects are deleted after that; one under the same hash has another key by then.
3. An object whose row is missing is garbage for good: its row came before it and no key is used
   twice. So objects are listed first and their rows looked up then
   (service/record/files/collecting.py), and what a killed writer or collector left is found.

Grace only saves work: without it, writers would put again what was collected under their hands.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import BlobError, BlobGoneError, StoreError
from service.record.db.database import Database, now
from service.record.db.models import Blob, Installation
from service.record.files.objects import Objects, open_objects
from service.settings import Settings

OWNER_KEY = "tinyfit-installation"
"""The object that says whose store it is."""
_CHUNK_BYTES = 8_000_000


def open_blobs(
    settings: Settings,
    database: Database,
    *,
    patience_seconds: float = 0.0,
    on_wait: Callable[[], None] = lambda: None,
) -> Blobs:
    """The installation's artifact store. Raises InputError where its URL can't be one."""
    objects = open_objects(
        settings.resolved_artifact_url, patience_seconds=patience_seconds, on_wait=on_wait
    )
    return Blobs(database, objects)


def check_artifact_url(settings: Settings) -> None:
    """Raise InputError where the URL can't be that of a store; asks no server."""
    open_objects(settings.resolved_artifact_url)


def refer(session: Session, sha256: str) -> None:
    """Make sure that a blob stays until this session's commit, whose rows refer to it from then
    on. Raises BlobGoneError."""
    stored = select(Blob.is_stored).where(Blob.sha256 == sha256)
    if not session.scalar(stored.with_for_update(read=True, key_share=True)):
        raise BlobGoneError(f"blob {sha256} is not in the artifact store any more")


class Blobs:
    """An installation's contents in its artifact store."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self.database = database
        self.objects = objects
        self._is_owned = False

    def keep(self, path: Path, *, damaged: Container[str] = ()) -> str:
        """Store a file's content, and return its SHA-256; a row should refer to it soon.

        The file must not change any more: it may become the object itself. What is known to be
        damaged is stored again.
        """
        self.check_owner()
        sha256, num_bytes = hash_of(path), path.stat().st_size
        while True:
            key, is_stored = self._touch(sha256, num_bytes)
            if is_stored and sha256 not in damaged and self.objects.size(key) == num_bytes:
                return sha256
            self.objects.put(path, key)
            if self._mark_stored(sha256, key):
                return sha256

    def fetch(self, sha256: str, target: Path, *, share: bool = True) -> None:
        """Get a blob into a file, which appears whole and checked. share: it may be the object
        itself, not to be written to. Raises BlobError where it is missing or damaged."""
        blob = self.find(sha256)
        partial = target.with_name(f"{target.name}.partial.{os.getpid()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not (share and self._link(blob, partial)):
                with partial.open("wb") as file:
                    for chunk in self.read(blob, 0, blob.num_bytes):
                        file.write(chunk)
            if hash_of(partial) != sha256:
                raise _damaged(blob)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def find(self, sha256: str) -> Blob:
        """The row of a blob whose object is there, of the right size. Raises BlobError."""
        with self.database.reading() as session:
            blob = session.get(Blob, sha256)
        num_bytes = None
        if blob is not None and blob.is_stored:
            num_bytes = self.objects.size(blob.key)
        if blob is None or num_bytes is None:
            raise _missing(sha256)
        if num_bytes != blob.num_bytes:
            raise _damaged(blob)
        return blob

    def is_intact(self, sha256: str) -> bool:
        """Whether a blob is there, with the right content; reads all of it."""
        try:
            blob = self.find(sha256)
            digest = hashlib.sha256()
            for chunk in self.read(blob, 0, blob.num_bytes):
                digest.update(chunk)
        except BlobError:
            return False
        return digest.hexdigest() == sha256

    def read(self, blob: Blob, start: int, stop: int) -> Iterator[bytes]:
        """Its bytes from start up to stop, in pieces, not checked. Raises BlobError where the
        object is missing or short."""
        for position in range(start, stop, _CHUNK_BYTES):
            end = min(stop, position + _CHUNK_BYTES)
            try:
                chunk = self.objects.read(blob.key, position, end)
            except FileNotFoundError as error:
                raise _missing(blob.sha256) from error
            if len(chunk) != end - position:
                raise _damaged(blob)
            yield chunk

    def path(self, blob: Blob) -> Path | None:
        """The object as a file of this machine, to be read only; None for a store elsewhere."""
        return self.objects.path(blob.key)

    def check_owner(self) -> None:
        """Make the store this installation's. Raises StoreError where it is another's, whose
        objects the collector would take for garbage."""
        if self._is_owned:
            return
        own = installation_id(self.database)
        owner = self._read_owner()
        if owner is None:
            self.objects.write(OWNER_KEY, own.encode())
            owner = self._read_owner()
        if owner != own:
            raise StoreError(
                f"artifact store {self.objects.url!r} belongs to another installation; give each "
                f"database a folder or prefix of its own (TINYFIT_ARTIFACT_URL)"
            )
        self._is_owned = True

    def _read_owner(self) -> str | None:
        try:
            return self.objects.read(OWNER_KEY, 0, 100).decode("ascii", "replace")
        except FileNotFoundError:
            return None

    def _touch(self, sha256: str, num_bytes: int) -> tuple[str, bool]:
        """The pending reference; the key, and whether the object is stored."""
        while True:
            touched = (
                update(Blob)
                .where(Blob.sha256 == sha256)
                .values(touched_at=now())
                .returning(Blob.key, Blob.is_stored)
                .execution_options(synchronize_session=False)
            )
            try:
                with self.database.writing() as session:
                    row = session.execute(touched).first()
                    if row is not None:
                        return row.key, row.is_stored
                    key = f"{sha256}.{uuid.uuid4().hex}"
                    session.add(
                        Blob(
                            sha256=sha256,
                            key=key,
                            num_bytes=num_bytes,
                            is_stored=False,
                            touched_at=now(),
                            created_at=now(),
                        )
                    )
                return key, False
            except IntegrityError:  # another writer of the same content was quicker
                continue

    def _mark_stored(self, sha256: str, key: str) -> bool:
        """False where the row has been collected: putting took longer than the grace period."""
        stored = (
            update(Blob)
            .where(Blob.sha256 == sha256, Blob.key == key)
            .values(is_stored=True, touched_at=now())
            .returning(Blob.key)
            .execution_options(synchronize_session=False)
        )
        with self.database.writing() as session:
            return session.execute(stored).first() is not None

    def _link(self, blob: Blob, target: Path) -> bool:
        """The object under another name; False where that can't be."""
        source = self.path(blob)
        if source is None:
            return False
        try:
            os.link(source, target)
        except FileNotFoundError as error:
            raise _missing(blob.sha256) from error
        except OSError:  # a file system without links, or another one
            return False
        return True


def installation_id(database: Database) -> str:
    """What this installation calls itself, from the first time on that it is asked."""
    with database.reading() as session:
        known = session.scalar(select(Installation.id))
    if known is not None:
        return str(known)
    with suppress(IntegrityError), database.writing() as session:  # another may be quicker
        session.add(Installation(number=1, id=uuid.uuid4().hex))
    return installation_id(database)


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(sha256: str) -> BlobError:
    return BlobError(f"blob {sha256} is missing from the artifact store")


def _damaged(blob: Blob) -> BlobError:
    return BlobError(f"blob {blob.sha256} is damaged in the artifact store (object {blob.key!r})")
