"""Which of the files in attempts' folders on this machine stay: of a job that can go on, those
of unfinished stages; else none, but what an earlier version published there.

Nothing here gets in the way of an attempt at work, on this machine or on another that shares the
folder. An attempt writes to a folder of its own number; only folders up to the number that the
record showed are touched, of these not the latest copy of a resumable file, and of a running job
none. What is in the artifact store is the collector's (service/record/files/collecting.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from service.contract.status import Status
from service.record.db.database import Database
from service.record.db.models import Artifact, Job
from service.record.files.artifacts import KEPT, RESUMABLE, attempts_in, remove
from service.settings import Settings

logger = logging.getLogger(__name__)

_JOBS_AT_ONCE = 500
_OWNER_MARK = ".jobs-database"


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What the record says of a job's files."""

    status: Status
    attempt: int
    published: frozenset[str]
    """Without blobs: paths relative to the job's folder; of a finished job, those of KEPT."""


def tidy_job(settings: Settings, database: Database, job_id: str) -> None:
    """Remove what one job has no more use for."""
    kept = _look_up(database, [job_id]).get(job_id)
    if kept is None:
        remove(settings.jobs_dir / job_id)
    else:
        _tidy(settings.jobs_dir / job_id, kept)


def sweep(settings: Settings, database: Database) -> None:
    """Tidy every job's folder: after processes that died, and those that wrote after the end."""
    # A folder is looked for first and its row then: a job has its row before its folder.
    settings.jobs_dir.mkdir(parents=True, exist_ok=True)
    names = sorted(entry.name for entry in os.scandir(settings.jobs_dir) if entry.is_dir())
    unknown = [
        name
        for start in range(0, len(names), _JOBS_AT_ONCE)
        for name in _sweep(settings.jobs_dir, database, names[start : start + _JOBS_AT_ONCE])
    ]
    if _are_ours(settings, database, unknown):
        for name in unknown:
            logger.info("removing the files of job %s, which is deleted", name)
            remove(settings.jobs_dir / name)


def _sweep(jobs_dir: Path, database: Database, job_ids: list[str]) -> Iterator[str]:
    """Tidy these jobs' folders; gives those of which there is no job."""
    known = _look_up(database, job_ids)
    for job_id in job_ids:
        if job_id in known:
            _tidy(jobs_dir / job_id, known[job_id])
        else:
            yield job_id


def _look_up(database: Database, job_ids: list[str]) -> dict[str, _Kept]:
    jobs = select(Job.id, Job.status, Job.attempt).where(Job.id.in_(job_ids))
    artifacts = select(Artifact.job_id, Artifact.kind, Artifact.path).where(
        Artifact.job_id.in_(job_ids), Artifact.blob_sha256.is_(None)
    )
    with database.reading() as session:
        rows = session.execute(jobs).all()
        paths: dict[str, dict[str, str]] = {row.id: {} for row in rows}
        for artifact in session.execute(artifacts):
            if artifact.job_id in paths:
                paths[artifact.job_id][artifact.kind] = artifact.path
    return {
        row.id: _Kept(
            status=row.status,
            attempt=row.attempt,
            published=frozenset(
                path
                for kind, path in paths[row.id].items()
                if kind in KEPT or row.status is not Status.SUCCEEDED
            ),
        )
        for row in rows
    }


def _tidy(job_dir: Path, kept: _Kept) -> None:
    if kept.status is Status.RUNNING:
        return
    resumable = set(RESUMABLE) if kept.status is not Status.SUCCEEDED else set()
    for attempt in attempts_in(job_dir):
        if attempt > kept.attempt:
            continue
        with suppress(FileNotFoundError):
            for path in (job_dir / str(attempt)).iterdir():
                if path.name in resumable:
                    resumable.remove(path.name)  # earlier ones are older
                elif f"{attempt}/{path.name}" not in kept.published:
                    remove(path)
        with suppress(OSError):  # it holds what is kept
            (job_dir / str(attempt)).rmdir()
    with suppress(OSError):
        job_dir.rmdir()


def _are_ours(settings: Settings, database: Database, unknown: list[str]) -> bool:
    """Whether the folders were made for this database, so that a job unknown to it is deleted.

    An installation that was given another database must not lose the results of the first.
    """
    name = "embedded" if settings.database_url is None else database.shown_url
    mark = settings.data_dir / _OWNER_MARK
    if not unknown:
        if not mark.exists():
            mark.write_text(name)
        return True
    if mark.exists() and mark.read_text() == name:
        return True
    logger.warning(
        "%d folders in %s belong to no job of this database and perhaps to those of another; "
        "they stay. Where they may go, write %r to %s",
        *(len(unknown), settings.jobs_dir, name, mark),
    )
    return False
