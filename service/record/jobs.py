"""Jobs as their owners deal with them: made, found, paused, cancelled, retried, deleted.

What workers do to jobs is in service/record/claims.py.
"""

from __future__ import annotations

import operator
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session, undefer

from service.contract.requests import JobRequest
from service.contract.status import EventKind, Outcome, Priority, Status, StopRequest
from service.errors import ConflictError, InputError, NotFoundError
from service.record.claims import end_attempt, leave_job
from service.record.db.database import Database, compared, now, pinned
from service.record.db.models import (
    Artifact,
    Attempt,
    Dataset,
    Event,
    IdempotencyKey,
    Job,
    StageTime,
    Trial,
    Webhook,
)
from service.record.events import append_event
from service.record.files.artifacts import BUNDLE
from service.record.queue import is_lost

_DELETED_AT_ONCE = 100
_IDEMPOTENCY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """What a client calls its request, so that sending it twice makes one job."""

    owner: str
    key: str
    request_sha256: str


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a page of a list, newest first, begins: after this job."""

    created_at: float
    job_id: str


Found = tuple[Job, Artifact | None]
"""A job, and its bundle if it has one."""


def create_job(
    database: Database,
    request: JobRequest,
    idempotency: Idempotency | None = None,
    *,
    owner: str = "",
) -> tuple[Job, bool]:
    """Queue a job, and say whether it is new; the request has been checked. owner: the id of the
    API key that it came with.

    Raises InputError where the idempotency key was given to another request before.
    """
    try:
        with database.writing() as session:
            if idempotency is None:
                return _add_job(session, request, owner), True
            _forget_old_keys(session)
            known = _find_known(session, idempotency)
            if known is not None:
                return known, False
            job = _add_job(session, request, owner)
            session.add(
                IdempotencyKey(
                    owner=idempotency.owner,
                    key=idempotency.key,
                    request_sha256=idempotency.request_sha256,
                    job_id=job.id,
                    created_at=now(),
                )
            )
        return job, True
    except IntegrityError:  # the same request, sent twice at once, was quicker
        known = None if idempotency is None else find_repeated(database, idempotency)
        if known is None:
            raise
        return known, False


def find_repeated(database: Database, idempotency: Idempotency) -> Job | None:
    """The job that this very request made before, if it did."""
    with database.reading() as session:
        return _find_known(session, idempotency)


def get_job(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return _get(session, job_id)


def find_job(database: Database, job_id: str) -> Found:
    """A job with its bundle. Raises NotFoundError."""
    bundle = and_(Artifact.job_id == Job.id, Artifact.kind == BUNDLE)
    with_bundle = select(Job, Artifact).outerjoin(Artifact, bundle).where(Job.id == job_id)
    with database.reading() as session:
        row = session.execute(with_bundle).first()
    if row is None:
        raise _not_found(job_id)
    return row[0], row[1]


def list_jobs(
    database: Database,
    *,
    limit: int = 100,
    after: Position | None = None,
    status: Status | None = None,
    dataset_id: str | None = None,
) -> Sequence[Found]:
    """At most limit jobs with their bundles, newest first, from the one after `after` on."""
    filters: list[tuple[InstrumentedAttribute[Any], object]] = []
    if dataset_id is not None:
        filters.append((Job.dataset_id, dataset_id))
    if status is not None:
        filters.append((Job.status, status))
    order = [*(column for column, _ in filters), Job.created_at, Job.id]
    page = select(Job).order_by(*(column.desc() for column in order)).limit(limit)
    if after is not None:
        position = ((Job.created_at, after.created_at), (Job.id, after.job_id))
        page = page.where(compared(operator.lt, *filters, *position))
    if filters:
        page = page.where(pinned(*filters) if after is None else compared(operator.ge, *filters))
    with database.reading() as session:
        jobs = session.scalars(page).all()
        bundles = _bundles(session, jobs)
    return [(job, bundles.get(job.id)) for job in jobs]


def list_trials(
    database: Database,
    job_id: str,
    *,
    after: int = -1,
    limit: int | None = None,
    with_correct: bool = False,
) -> list[Trial]:
    """A job's trials in order, from the one after `after` on; with which images were right where
    asked for. Raises NotFoundError.
    """
    with database.reading() as session:
        _get(session, job_id)
        in_order = (
            select(Trial)
            .where(Trial.job_id == job_id, Trial.number > after)
            .order_by(Trial.number)
            .limit(limit)
        )
        if with_correct:
            in_order = in_order.options(undefer(Trial.correct))
        return list(session.scalars(in_order))


def list_attempts(database: Database, job_id: str) -> list[Attempt]:
    """A job's attempts in order. Raises NotFoundError."""
    with database.reading() as session:
        _get(session, job_id)
        in_order = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)
        return list(session.scalars(in_order))


def get_artifact(database: Database, job_id: str, kind: str) -> Artifact | None:
    with database.reading() as session:
        return session.get(Artifact, (job_id, kind))


def list_artifacts(database: Database, job_id: str) -> list[Artifact]:
    with database.reading() as session:
        of_job = select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.kind)
        return list(session.scalars(of_job))


def cancel_job(database: Database, job_id: str) -> Job:
    """End a job: at once while nobody works on it, else as soon as its worker has stopped."""
    with _changing(database, job_id) as (session, job):
        if job.status in (Status.SUCCEEDED, Status.FAILED):
            raise ConflictError(f"job {job_id!r} has already {job.status.value}")
        if job.status is not Status.CANCELLED:
            _stop(session, job, StopRequest.CANCEL, Status.CANCELLED)
    return job


def pause_job(database: Database, job_id: str) -> Job:
    """Let a job rest until it is resumed: at once, or as soon as its worker has stopped."""
    with _changing(database, job_id) as (session, job):
        if job.status.is_final or job.stop_request is StopRequest.CANCEL:
            state = job.status.value if job.status.is_final else "being cancelled"
            raise ConflictError(f"job {job_id!r} is {state} and can't be paused")
        if job.status is not Status.PAUSED:
            _stop(session, job, StopRequest.PAUSE, Status.PAUSED)
    return job


def resume_job(database: Database, job_id: str) -> Job:
    """Queue a paused job again; it goes on from what is finished."""
    with _changing(database, job_id) as (session, job):
        if job.status.is_final:
            raise ConflictError(
                f"job {job_id!r} is {job.status.value} and can't be resumed; retry goes on with "
                f"one that failed or was cancelled"
            )
        if job.stop_request is StopRequest.CANCEL:
            raise ConflictError(f"job {job_id!r} is being cancelled and can't be resumed")
        if job.status is Status.PAUSED:
            _queue(session, job)
        elif job.stop_request is StopRequest.PAUSE:
            job.stop_request = None
            append_event(session, job, EventKind.REQUEST, request=None)
    return job


def retry_job(database: Database, job_id: str) -> Job:
    """Queue a failed or cancelled job again; it goes on from what is finished."""
    with _changing(database, job_id) as (session, job):
        if job.status not in (Status.FAILED, Status.CANCELLED):
            raise ConflictError(
                f"job {job_id!r} is {job.status.value}; only one that failed or was cancelled "
                f"can be retried"
            )
        _queue(session, job)
    return job


def set_priority(database: Database, job_id: str, priority: Priority) -> Job:
    """Let a job wait for shorter or longer, now or when it is next in the queue."""
    with _changing(database, job_id) as (_, job):
        job.priority = priority
    return job


def delete_job(database: Database, job_id: str) -> None:
    """Remove a job from the record; its files are the caller's to remove."""
    with database.writing() as session:
        job = _lock(session, job_id)
        if job.status is Status.RUNNING:
            raise ConflictError(f"job {job_id!r} is running; cancel it first")
        _delete(session, job)


def delete_expired_jobs(database: Database, *, older_than_seconds: float) -> list[str]:
    """Remove jobs that ended longer ago from the record; their ids."""
    expired = (
        select(Job)
        .where(
            Job.status.in_([status for status in Status if status.is_final]),
            Job.finished_at < now() - older_than_seconds,
        )
        .order_by(Job.finished_at)
        .limit(_DELETED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    deleted: list[str] = []
    while True:
        with database.writing() as session:
            jobs = session.scalars(expired).all()
            for job in jobs:
                _delete(session, job)
        if not jobs:
            return deleted
        deleted += [job.id for job in jobs]


def requeue_job(database: Database, job_id: str) -> None:
    """Put a running job back: whoever worked on it is gone for certain, and not for its sake."""
    with database.writing() as session:
        job = _lock(session, job_id)
        if job.status is Status.RUNNING:
            end_attempt(session, job, Outcome.RELEASED)
            _queue(session, job)


@contextmanager
def _changing(database: Database, job_id: str) -> Iterator[tuple[Session, Job]]:
    """A job that nobody else changes in the meantime; then it is as the database has it."""
    with database.writing() as session:
        job = _lock(session, job_id)
        yield session, job
        session.flush()
        session.refresh(job)


def _get(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise _not_found(job_id)
    return job


def _lock(session: Session, job_id: str) -> Job:
    """The row, which nobody else changes before the session commits."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise _not_found(job_id)
    return job


def _delete(session: Session, job: Job) -> None:
    for table in (Trial, Artifact, StageTime, Event, Attempt, IdempotencyKey, Webhook):
        session.execute(delete(table).where(table.job_id == job.id))
    session.delete(job)


def _not_found(job_id: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job_id!r}; GET /jobs lists them")


def _bundles(session: Session, jobs: Sequence[Job]) -> dict[str, Artifact]:
    ids = [job.id for job in jobs]
    found = select(Artifact).where(Artifact.kind == BUNDLE, Artifact.job_id.in_(ids))
    return {bundle.job_id: bundle for bundle in session.scalars(found)} if ids else {}


def _stop(session: Session, job: Job, wanted: StopRequest, status: Status) -> None:
    """At once where nobody works on the job; otherwise its worker is asked to."""
    if job.status is Status.RUNNING and not _is_lost(session, job):
        if job.stop_request is not wanted:
            job.stop_request = wanted
            append_event(session, job, EventKind.REQUEST, request=wanted)
        return
    end_attempt(session, job, Outcome.LOST)
    leave_job(session, job, status)


def _is_lost(session: Session, job: Job) -> bool:
    return session.scalars(select(is_lost()).where(Job.id == job.id)).one()


def _queue(session: Session, job: Job) -> None:
    job.finished_at = None
    job.error = None
    job.lost_attempts = 0
    leave_job(session, job, Status.QUEUED)


def _add_job(session: Session, request: JobRequest, owner: str) -> Job:
    share = {"read": True, "key_share": True}
    if session.get(Dataset, request.dataset, with_for_update=share) is None:  # just deleted
        raise NotFoundError(
            f"there is no dataset {request.dataset!r}; POST a zip to /datasets first"
        )
    job_id = uuid.uuid4().hex
    job = Job(
        id=job_id,
        name=request.name or f"job {job_id[:8]}",
        dataset_id=request.dataset,
        memory_limit_bytes=request.memory_limit,
        supernet=request.supernet,
        method=request.method.value,
        peak_meaning=request.method.method.peak_meaning,
        settings=request.settings.model_dump(mode="json"),
        priority=request.priority,
        owner=owner,
        created_at=now(),
    )
    session.add(job)
    session.flush()
    append_event(session, job, EventKind.STATUS, status=Status.QUEUED)
    if request.webhook is not None:
        session.add(Webhook(job_id=job.id, url=request.webhook, due_at=now()))
    session.flush()
    session.refresh(job)
    return job


def _find_known(session: Session, idempotency: Idempotency) -> Job | None:
    known = session.scalars(
        select(IdempotencyKey).where(
            IdempotencyKey.owner == idempotency.owner,
            IdempotencyKey.key == idempotency.key,
            IdempotencyKey.created_at >= now() - _IDEMPOTENCY_SECONDS,
        )
    ).first()
    if known is None:
        return None
    if known.request_sha256 != idempotency.request_sha256:
        raise InputError(
            f"Idempotency-Key {idempotency.key!r} came with another request before; give each "
            f"request a key of its own"
        )
    return _get(session, known.job_id)


def _forget_old_keys(session: Session) -> None:
    session.execute(
        delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - _IDEMPOTENCY_SECONDS)
    )
