"""A worker's side of jobs: claim, renew, write, end.

A claim gives the job a lease and a new attempt number. Every write of a worker first locks the
job's row, by that number: one that lost its lease to another changes nothing any more. What
belongs to a job is written only under the lock of its row, so that locks have one order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from service.contract.status import EventKind, JsonObject, Outcome, Status, StopRequest
from service.errors import LeaseLostError
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Attempt, Job, StageTime, Trial
from service.record.events import append_event
from service.record.files.artifacts import KEPT, RESUMABLE
from service.record.files.blobs import refer
from service.record.queue import find_waiting, has_room


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on a job, for as long as nobody else has claimed it."""

    job_id: str
    attempt: int


def claim_job(
    database: Database, *, worker: str, lease_seconds: float, max_lost_attempts: int
) -> Claim | None:
    """Take a job whose lease ran out, or else the next queued one; None where there is none."""
    with database.reading() as session:  # whoever only looks takes no lock
        if find_waiting(session) is None:
            return None
    while True:
        with database.writing() as session:
            job = find_waiting(session, lock=True)
            if job is None:
                return None
            if job.status is Status.RUNNING:
                _lose(session, job, max_lost_attempts)
            elif not has_room(session, job.owner):
                continue  # another worker has just taken the last of its owner's places
            if job.status is Status.QUEUED:  # else it has failed, or was asked to stop
                return _start_attempt(session, job, worker, lease_seconds)


def renew_lease(database: Database, claim: Claim, *, lease_seconds: float) -> None:
    """Hold on to the job for longer."""
    with database.writing() as session:
        _lock_held(session, claim).lease_expires_at = now() + lease_seconds


def stop_request(database: Database, claim: Claim) -> StopRequest | None:
    """What the job's owner wants of its worker. Raises LeaseLostError where it is not this one."""
    with database.reading() as session:
        row = session.execute(select(Job.stop_request).where(*_is_held(claim))).first()
    if row is None:
        raise _lost(claim)
    found: StopRequest | None = row.stop_request
    return found


def release_job(database: Database, claim: Claim) -> None:
    """Nothing of the job runs any more: it is cancelled or paused where its owner asked for that,
    else it is back in the queue, to go on from what is finished."""
    with database.writing() as session:
        _put_back(session, _lock_held(session, claim))


def lose_job(database: Database, claim: Claim, *, max_lost_attempts: int) -> None:
    """The job's process died on its own: as `release_job`, unless that happens too often."""
    with database.writing() as session:
        _lose(session, _lock_held(session, claim), max_lost_attempts)


def succeed_job(database: Database, claim: Claim, result: JsonObject) -> None:
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.result = result
        job.progress = 1.0
        _forget(session, job, Artifact.kind.not_in(KEPT))
        _finish_stage(session, job)
        end_attempt(session, job, Outcome.SUCCEEDED)
        leave_job(session, job, Status.SUCCEEDED)


def fail_job(database: Database, claim: Claim, error: str) -> None:
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.error = error
        end_attempt(session, job, Outcome.FAILED)
        leave_job(session, job, Status.FAILED, error=error)


def set_progress(
    database: Database, claim: Claim, *, stage: str, progress: float, seconds_left: float | None
) -> None:
    """Say how far the job is; progress never goes back."""
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.progress = max(job.progress, progress)
        job.estimated_finish_at = None if seconds_left is None else now() + seconds_left
        if stage != job.stage:
            job.stage = stage
            append_event(session, job, EventKind.STAGE, stage=stage)
            _finish_stage(session, job)
            session.add(
                StageTime(
                    job_id=job.id,
                    number=job.num_events,
                    attempt=job.attempt,
                    stage=stage,
                    started_at=now(),
                )
            )


def add_trial(database: Database, claim: Claim, trial: Trial) -> None:
    """Record a scored candidate; once more, should it not be known whether it was."""
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.lost_attempts = 0
        is_new = session.get(Trial, (trial.job_id, trial.number)) is None
        session.merge(trial)
        if is_new:
            append_event(
                session,
                job,
                EventKind.TRIAL,
                number=trial.number,
                resolution=trial.candidate["resolution"],
                predicted_peak_bytes=trial.predicted_peak_bytes,
                lean_peak_bytes=trial.lean_peak_bytes,
                macs=trial.macs,
                validation_accuracy=trial.accuracy,
                num_images=trial.num_images,
                is_complete=trial.is_complete,
            )


def publish_artifact(database: Database, claim: Claim, *artifacts: Artifact) -> None:
    """Make a finished stage's files part of the job. Raises BlobGoneError where one has to be
    kept again, here and below."""
    with database.writing() as session:
        _lock_held(session, claim).lost_attempts = 0
        _publish(session, artifacts)


def publish_resumable(database: Database, claim: Claim, artifact: Artifact) -> str | None:
    """Let other attempts go on from a file of an unfinished stage; the blob of an older one that
    it takes the place of."""
    with database.writing() as session:
        job = _lock_held(session, claim)
        before = session.get(Artifact, (job.id, artifact.kind))
        superseded = before.blob_sha256 if before is not None else None
        _publish(session, [artifact])
    return superseded if superseded != artifact.blob_sha256 else None


def choose_supernet(
    database: Database, claim: Claim, supernet: str, probes: Sequence[JsonObject]
) -> None:
    """Write down which supernet the job's data chose, and by what."""
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.chosen_supernet = supernet
        job.supernet_probes = list(probes)


def publish_adapted(
    database: Database, claim: Claim, artifact: Artifact, trials: Iterable[Trial] = ()
) -> None:
    """Make an adapted supernet part of the job, with the trials that others have scored with it.

    Trials that the job has scored with a supernet of other content go: they can't be compared.
    """
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.lost_attempts = 0
        before = session.get(Artifact, (job.id, artifact.kind))
        if before is None or before.sha256 != artifact.sha256:
            session.execute(delete(Trial).where(Trial.job_id == job.id))
            session.add_all(trials)
        _forget(session, job, Artifact.kind.in_(RESUMABLE))  # they were with another one
        _publish(session, [artifact])


def add_epoch(database: Database, claim: Claim, **report: object) -> None:
    """Tell of a finished epoch, as `EventKind.EPOCH` says."""
    with database.writing() as session:
        job = _lock_held(session, claim)
        job.lost_attempts = 0
        append_event(session, job, EventKind.EPOCH, **report)


def add_log(database: Database, claim: Claim, message: str) -> None:
    """A line for whoever follows the job."""
    with database.writing() as session:
        append_event(session, _lock_held(session, claim), EventKind.LOG, message=message)


def end_attempt(session: Session, job: Job, outcome: Outcome) -> None:
    """Close the open attempt of a job whose row this session has locked."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.outcome.is_(None))
        .values(outcome=outcome, ended_at=now())
        .execution_options(synchronize_session=False)
    )


def leave_job(session: Session, job: Job, status: Status, **detail: object) -> None:
    """Nobody works on the job, whose row this session has locked: from now on it is `status`."""
    job.status = status
    job.lease_expires_at = None
    job.stop_request = None
    job.estimated_finish_at = None
    if status.is_final:
        job.finished_at = now()
    append_event(session, job, EventKind.STATUS, status=status, **detail)


def _publish(session: Session, artifacts: Iterable[Artifact]) -> None:
    for artifact in artifacts:
        if artifact.blob_sha256 is not None:
            refer(session, artifact.blob_sha256)
        session.merge(artifact)


def _forget(session: Session, job: Job, which: ColumnElement[bool]) -> None:
    """Let go of what the job has no more use for."""
    session.execute(
        delete(Artifact)
        .where(Artifact.job_id == job.id, which)
        .execution_options(synchronize_session=False)
    )


def _finish_stage(session: Session, job: Job) -> None:
    """This attempt is done with the stage that it was at."""
    session.execute(
        update(StageTime)
        .where(
            StageTime.job_id == job.id,
            StageTime.attempt == job.attempt,
            StageTime.ended_at.is_(None),
        )
        .values(ended_at=now())
        .execution_options(synchronize_session=False)
    )


def _lock_held(session: Session, claim: Claim) -> Job:
    """The claim's job, locked until the commit. Raises LeaseLostError."""
    job = session.scalars(select(Job).where(*_is_held(claim)).with_for_update()).first()
    if job is None:
        raise _lost(claim)
    return job


def _is_held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == claim.job_id,
        Job.attempt == claim.attempt,
        Job.status == Status.RUNNING,
    )


def _lost(claim: Claim) -> LeaseLostError:
    return LeaseLostError(f"attempt {claim.attempt} no longer owns job {claim.job_id!r}")


def _start_attempt(session: Session, job: Job, worker: str, lease_seconds: float) -> Claim:
    job.status = Status.RUNNING
    job.attempt += 1
    job.lease_expires_at = now() + lease_seconds
    if job.started_at is None:
        job.started_at = now()
    session.add(Attempt(job_id=job.id, number=job.attempt, worker=worker, started_at=now()))
    append_event(session, job, EventKind.STATUS, status=Status.RUNNING, worker=worker)
    return Claim(job_id=job.id, attempt=job.attempt)


def _lose(session: Session, job: Job, max_lost_attempts: int) -> None:
    """A job that takes its workers down with it must not go round for ever."""
    job.lost_attempts += 1
    if job.lost_attempts > max_lost_attempts and job.stop_request is None:
        job.error = (
            f"the process that worked on it died more than {max_lost_attempts} times without "
            f"getting anything finished, perhaps for want of memory; see the worker's log"
        )
        end_attempt(session, job, Outcome.LOST)
        leave_job(session, job, Status.FAILED, error=job.error)
    else:
        _put_back(session, job, Outcome.LOST)


def _put_back(session: Session, job: Job, outcome: Outcome | None = None) -> None:
    status, usual = {
        StopRequest.CANCEL: (Status.CANCELLED, Outcome.CANCELLED),
        StopRequest.PAUSE: (Status.PAUSED, Outcome.PAUSED),
        None: (Status.QUEUED, Outcome.RELEASED),
    }[job.stop_request]
    end_attempt(session, job, outcome or usual)
    leave_job(session, job, status)
