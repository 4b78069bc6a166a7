"""Which workers are up, by what they were last heard of."""

from __future__ import annotations

from sqlalchemy import delete, select, update

from service.record.db.database import Database, now
from service.record.db.models import WorkerPresence

_KEPT_SECONDS = 24 * 3600.0


def mark_seen(database: Database, worker_id: str, name: str) -> None:
    """Say that a worker is up, and forget those not heard of for a day."""
    with database.writing() as session:
        seen = (
            update(WorkerPresence)
            .where(WorkerPresence.id == worker_id)
            .values(name=name, seen_at=now())
            .returning(WorkerPresence.id)
            .execution_options(synchronize_session=False)
        )
        if session.execute(seen).first() is None:
            session.add(WorkerPresence(id=worker_id, name=name, started_at=now(), seen_at=now()))
        forgotten = (
            select(WorkerPresence.id)
            .where(WorkerPresence.seen_at < now() - _KEPT_SECONDS)
            .with_for_update(skip_locked=True)  # another worker may be at it just now
        )
        session.execute(
            delete(WorkerPresence)
            .where(WorkerPresence.id.in_(forgotten))
            .execution_options(synchronize_session=False)
        )


def mark_gone(database: Database, worker_id: str) -> None:
    """Say that a worker has ended."""
    with database.writing() as session:
        session.execute(
            delete(WorkerPresence)
            .where(WorkerPresence.id == worker_id)
            .execution_options(synchronize_session=False)
        )


def list_workers(database: Database, within_seconds: float) -> list[WorkerPresence]:
    """Workers heard of within the last so many seconds, oldest first."""
    with database.reading() as session:
        up = (
            select(WorkerPresence)
            .where(WorkerPresence.seen_at >= now() - within_seconds)
            .order_by(WorkerPresence.started_at, WorkerPresence.id)
        )
        return list(session.scalars(up))
