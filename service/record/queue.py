"""Which job is worked on next.

One whose worker has let its lease run out; else the first of the queue: by priority, then by age.
Jobs of an API key that has as many running as it may are passed over, however many they are: then
the queue is read owner by owner, each from its first job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, func, literal, select, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.contract.status import Status
from service.record.db.database import now, pinned
from service.record.db.models import ApiKey, Job


def is_lost() -> ColumnElement[bool]:
    """Whether a job's worker has let its lease run out."""
    return and_(pinned((Job.status, Status.RUNNING)), Job.lease_expires_at < now())


def find_waiting(session: Session, *, lock: bool = False) -> Job | None:
    """The job to claim next. lock: locked, and what another worker is about to claim is passed
    over.
    """
    for waiting in _waiting(session):
        if lock:
            waiting = waiting.with_for_update(skip_locked=True)
        job = session.scalars(waiting).first()
        if job is not None:
            return job
    return None


def has_room(session: Session, owner: str) -> bool:
    """Whether one more of the owner's jobs may run; no other session finds so before this one
    has committed."""
    if not owner:
        return True
    limit = session.scalar(
        select(ApiKey.max_running)
        .where(ApiKey.id == owner, ApiKey.max_running.is_not(None))
        .with_for_update(key_share=True)
    )
    if limit is None:
        return True
    return session.scalars(select(_num_running(owner))).one() < limit


def _waiting(session: Session) -> Iterator[Select[Job]]:
    """Queries for the job to claim next: the first that finds one says which."""
    yield select(Job).where(is_lost()).order_by(Job.status, Job.created_at, Job.id).limit(1)
    full = session.scalars(
        select(ApiKey.id).where(
            ApiKey.max_running.is_not(None), ApiKey.max_running <= _num_running(ApiKey.id)
        )
    ).all()
    if not full:
        yield _queue((Job.status, Status.QUEUED))
        return
    for owner in _owners_in_line(session, full):
        yield _queue((Job.status, Status.QUEUED), (Job.owner, owner))


def _owners_in_line(session: Session, full: Sequence[str]) -> Sequence[str]:
    """Owners with queued jobs who may have more of them running, in the order of their first."""
    keys = select(ApiKey.id.label("id")).where(ApiKey.id.not_in(full))
    owners = union_all(keys, select(literal(""))).subquery()
    first = _queue((Job.status, Status.QUEUED), (Job.owner, owners.c.id)).with_only_columns(Job.id)
    firsts = select(first.scalar_subquery().label("id")).select_from(owners).subquery()
    in_line = (
        select(Job.owner)
        .join(firsts, Job.id == firsts.c.id)
        .order_by(Job.priority, Job.created_at, Job.id)
    )
    return session.scalars(in_line).all()


def _queue(*wanted: tuple[InstrumentedAttribute[Any], object]) -> Select[Job]:
    """The first of the jobs with these values, in the order of the index that begins with them."""
    order = (*(column for column, _ in wanted), Job.priority, Job.created_at, Job.id)
    return select(Job).where(pinned(*wanted)).order_by(*order).limit(1)


def _num_running(owner: object) -> ScalarSelect[int]:
    running = and_(Job.status == Status.RUNNING, Job.owner == owner)
    return select(func.count()).select_from(Job).where(running).scalar_subquery()
