"""What happened to a job, in order: kept for its page, its log and whoever follows it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.contract.status import EventKind
from service.record.db.database import Database, now
from service.record.db.models import Event, Job

_EXCERPT = 500


def append_event(session: Session, job: Job, kind: EventKind, **detail: object) -> None:
    """Add the next event of a job whose row this session has locked: so numbers have no gap,
    and show in their order."""
    job.num_events += 1
    session.add(
        Event(
            job_id=job.id,
            number=job.num_events,
            kind=kind,
            detail=detail,
            attempt=job.attempt,
            created_at=now(),
        )
    )


def list_events(
    database: Database, job_id: str, *, after: int = 0, limit: int = _EXCERPT
) -> list[Event]:
    """At most limit events of a job, from the one after `after` on; empty for an unknown job."""
    with database.reading() as session:
        in_order = (
            select(Event)
            .where(Event.job_id == job_id, Event.number > after)
            .order_by(Event.number)
            .limit(limit)
        )
        return list(session.scalars(in_order))
