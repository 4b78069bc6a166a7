"""Whether this process can do its work, check by check."""

from __future__ import annotations

import shutil
import tempfile

from sqlalchemy.exc import SQLAlchemyError

from service.errors import SchemaError, ServiceError, StoreUnavailableError
from service.record.db.database import Database
from service.record.files.blobs import OWNER_KEY, Blobs
from service.record.presence import list_workers
from service.settings import Settings
from service.views.schemas import Check, Readiness
from tinytl.units import format_bytes

WORKER_SEEN_SECONDS = 30.0
"""A worker not heard of for so long is not counted on."""


def check_readiness(settings: Settings, database: Database, blobs: Blobs) -> Readiness:
    """All checks; each says what it found. A missing worker is told but does not count: jobs
    wait for one."""
    checks = [*_check_database(settings, database), _check_storage(settings)]
    if not blobs.objects.is_local:  # else it is a folder, and mostly one of the data folder's
        checks.append(_check_artifacts(blobs))
    is_ready = all(check.ok for check in checks)
    return Readiness(status="ready" if is_ready else "not ready", checks=checks)


def _check_database(settings: Settings, database: Database) -> list[Check]:
    try:
        database.check_schema()
    except SchemaError as error:
        return [
            Check(name="database", ok=True, detail="it answers"),
            Check(name="schema", ok=False, detail=str(error)),
        ]
    except SQLAlchemyError:
        return [Check(name="database", ok=False, detail="it does not answer")]
    answering = [
        Check(name="database", ok=True, detail="it answers"),
        Check(name="schema", ok=True, detail="it is up to date"),
    ]
    try:
        workers = list_workers(database, WORKER_SEEN_SECONDS)
    except SQLAlchemyError:
        return [Check(name="database", ok=False, detail="it stopped answering")]
    names = ", ".join(worker.name for worker in workers)
    detail = f"{len(workers)} up: {names}" if workers else "none has been seen; jobs wait for one"
    return [*answering, Check(name="workers", ok=True, detail=detail)]


def _check_storage(settings: Settings) -> Check:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name="storage", ok=False, detail=f"can't write to it: {error.strerror}")
    if free_bytes < settings.min_free_bytes:
        return Check(
            name="storage",
            ok=False,
            detail=f"{format_bytes(free_bytes)} free, but min_free_bytes asks for "
            f"{format_bytes(settings.min_free_bytes)}",
        )
    return Check(name="storage", ok=True, detail=f"{format_bytes(free_bytes)} free")


def _check_artifacts(blobs: Blobs) -> Check:
    try:
        blobs.objects.size(OWNER_KEY)
    except StoreUnavailableError:
        return Check(name="artifacts", ok=False, detail="their store does not answer")
    except ServiceError as error:
        return Check(name="artifacts", ok=False, detail=str(error))
    return Check(name="artifacts", ok=True, detail="their store answers")
