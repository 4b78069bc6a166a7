"""Jobs in the database: made, claimed, renewed, ended.

A claim is one statement, and gives the job a lease and a new attempt number. Every write of a
worker carries that number: one that lost its lease to another changes nothing any more.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Update, and_, case, or_, select, update
from sqlalchemy.orm import Session

from service.database import Database, now
from service.errors import ConflictError, LeaseLostError, NotFoundError
from service.models import Artifact, Job, JsonObject, Status, Trial
from service.schemas import JobRequest


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on a job, for as long as nobody else has claimed it."""

    job_id: str
    attempt: int
    cancel_requested: bool = False


def create_job(database: Database, request: JobRequest) -> Job:
    """Queue a job; the request has been checked."""
    job_id = uuid.uuid4().hex
    with database.writing() as session:
        job = Job(
            id=job_id,
            name=request.name or f"job {job_id[:8]}",
            dataset_id=request.dataset,
            memory_limit_bytes=request.memory_limit,
            supernet=request.supernet,
            method=request.method.value,
            settings=request.settings.model_dump(mode="json"),
            created_at=now(),
        )
        session.add(job)
        session.flush()
        session.refresh(job)
    return job


def get_job(database: Database, job_id: str) -> Job:
    with database.reading() as session:
        return _get(session, job_id)


def list_jobs(database: Database, *, limit: int = 100) -> list[Job]:
    """The newest jobs, newest first."""
    with database.reading() as session:
        newest_first = select(Job).order_by(Job.created_at.desc(), Job.id).limit(limit)
        return list(session.scalars(newest_first))


def list_trials(database: Database, job_id: str) -> list[Trial]:
    with database.reading() as session:
        _get(session, job_id)
        in_order = select(Trial).where(Trial.job_id == job_id).order_by(Trial.number)
        return list(session.scalars(in_order))


def get_artifact(database: Database, job_id: str, kind: str) -> Artifact | None:
    with database.reading() as session:
        return session.get(Artifact, (job_id, kind))


def claim_job(database: Database, *, lease_seconds: float, max_lost_attempts: int) -> Claim | None:
    """Take the oldest job that is queued or whose lease ran out; None where there is none."""
    is_lost = and_(Job.status == Status.RUNNING, Job.lease_expires_at < now())
    with database.writing() as session:
        _fail_lost(session, is_lost, max_lost_attempts)
        waiting = (
            select(Job.id)
            .where(or_(Job.status == Status.QUEUED, is_lost))
            .order_by(Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        claim = (
            update(Job)
            .where(Job.id == waiting)
            .values(
                lost_attempts=Job.lost_attempts + case((is_lost, 1), else_=0),
                status=Status.RUNNING,
                attempt=Job.attempt + 1,
                lease_expires_at=now() + lease_seconds,
                started_at=case((Job.started_at.is_(None), now()), else_=Job.started_at),
            )
            .returning(Job.id, Job.attempt, Job.cancel_requested)
            .execution_options(synchronize_session=False)
        )
        row = session.execute(claim).first()
    if row is None:
        return None
    return Claim(job_id=row.id, attempt=row.attempt, cancel_requested=row.cancel_requested)


def renew_lease(database: Database, claim: Claim, *, lease_seconds: float) -> bool:
    """Hold on to the job for longer; returns whether its owner wants it cancelled."""
    with database.writing() as session:
        renewal = _held(claim).values(lease_expires_at=now() + lease_seconds)
        row = session.execute(renewal.returning(Job.cancel_requested)).first()
    if row is None:
        raise _lost(claim)
    return bool(row.cancel_requested)


def request_cancel(database: Database, job_id: str) -> Job:
    """Cancel a job: at once while nobody works on it, else as soon as its worker has stopped."""
    with database.writing() as session:
        job = _get(session, job_id)
        if job.status.is_final and job.status is not Status.CANCELLED:
            raise ConflictError(f"job {job_id!r} has already {job.status.value}")
        idle = or_(
            Job.status == Status.QUEUED,
            and_(Job.status == Status.RUNNING, Job.lease_expires_at < now()),
        )
        session.execute(
            update(Job)
            .where(Job.id == job_id, idle)
            .values(status=Status.CANCELLED, finished_at=now(), lease_expires_at=None)
            .values(attempt=Job.attempt + 1)
        )
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.status == Status.RUNNING)
            .values(cancel_requested=True)
        )
        session.refresh(job)
    return job


def release_job(database: Database, claim: Claim, *, lost: bool = False) -> None:
    """Put the job back into the queue, to go on from what is finished.

    lost: this attempt died on its own; too many of those and the job fails instead.
    """
    _write(
        database,
        claim,
        status=Status.QUEUED,
        lease_expires_at=None,
        lost_attempts=Job.lost_attempts + (1 if lost else 0),
    )


def succeed_job(database: Database, claim: Claim, result: JsonObject) -> None:
    _end(database, claim, Status.SUCCEEDED, result=result, progress=1.0)


def fail_job(database: Database, claim: Claim, error: str) -> None:
    _end(database, claim, Status.FAILED, error=error)


def cancel_job(database: Database, claim: Claim) -> None:
    """The worker's part of a cancellation: nothing runs any more."""
    _end(database, claim, Status.CANCELLED)


def set_progress(database: Database, claim: Claim, *, stage: str, progress: float) -> None:
    """Say how far the job is; progress never goes back."""
    ahead = case((Job.progress > progress, Job.progress), else_=progress)
    _write(database, claim, stage=stage, progress=ahead)


def add_trial(database: Database, claim: Claim, trial: Trial) -> None:
    _add(database, claim, trial)


def publish_artifact(database: Database, claim: Claim, artifact: Artifact) -> None:
    """Make a stage's files part of the job."""
    _add(database, claim, artifact)


def requeue_job(database: Database, job_id: str) -> None:
    """Put a running job back: whoever worked on it is gone for certain, and not for its sake."""
    with database.writing() as session:
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.status == Status.RUNNING)
            .values(status=Status.QUEUED, lease_expires_at=None)
        )


def _get(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"there is no job {job_id!r}; GET /jobs lists them")
    return job


def _fail_lost(session: Session, is_lost: ColumnElement[bool], max_lost_attempts: int) -> None:
    """A job that takes its workers down with it must not go round for ever."""
    hopeless = and_(
        or_(is_lost, Job.status == Status.QUEUED),
        Job.lost_attempts + case((is_lost, 1), else_=0) > max_lost_attempts,
    )
    session.execute(
        update(Job)
        .where(hopeless)
        .values(
            status=Status.FAILED,
            finished_at=now(),
            lease_expires_at=None,
            attempt=Job.attempt + 1,
            error=f"the process that worked on it died more than {max_lost_attempts} times, "
            f"perhaps for want of memory; see the worker's log",
        )
        .execution_options(synchronize_session=False)
    )


def _held(claim: Claim) -> Update:
    return (
        update(Job)
        .where(
            Job.id == claim.job_id,
            Job.attempt == claim.attempt,
            Job.status == Status.RUNNING,
        )
        .execution_options(synchronize_session=False)
    )


def _lost(claim: Claim) -> LeaseLostError:
    return LeaseLostError(f"attempt {claim.attempt} no longer owns job {claim.job_id!r}")


def _write(database: Database, claim: Claim, **values: object) -> None:
    with database.writing() as session:
        _write_in(session, claim, **values)


def _write_in(session: Session, claim: Claim, **values: object) -> None:
    written = session.execute(_held(claim).values(**values).returning(Job.id)).first()
    if written is None:
        raise _lost(claim)


def _end(database: Database, claim: Claim, status: Status, **values: object) -> None:
    _write(database, claim, status=status, finished_at=now(), lease_expires_at=None, **values)


def _add(database: Database, claim: Claim, row: Artifact | Trial) -> None:
    """Insert or replace a row, only while the claim holds: the empty update takes the lock."""
    with database.writing() as session:
        _write_in(session, claim, attempt=claim.attempt)
        session.merge(row)
