"""Webhooks on record: whom a job's end is told to, and whether it has been.

A webhook is due while its job has ended and has had news since it was last told of. Whoever takes
it puts off its next try in the same transaction: should he die, that try is somebody's.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from service.contract.status import Status
from service.record.db.database import Database, now
from service.record.db.models import Job, Webhook

RETRY_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0)
"""From one try to the next; after the last of these it is given up."""

_SENDING_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Due:
    """A delivery to try. id: the same for every try, so that who got it twice can tell."""

    id: str
    url: str
    job: Job
    attempt: int


def take_due_webhook(database: Database) -> Due | None:
    """The one that has been due longest; nobody else takes it while it is being sent."""
    due = (
        select(Webhook, Job)
        .join(Job, Job.id == Webhook.job_id)
        .where(
            Job.status.in_([status for status in Status if status.is_final]),
            Webhook.told_events < Job.num_events,
            Webhook.due_at <= now(),
        )
        .order_by(Webhook.due_at)
        .limit(1)
        .with_for_update(skip_locked=True, of=Webhook)
    )
    with database.writing() as session:
        found = session.execute(due).first()
        if found is None:
            return None
        webhook, job = found
        webhook.num_attempts += 1
        webhook.due_at = now() + _SENDING_SECONDS
        attempt = webhook.num_attempts
        return Due(id=f"{job.id}.{job.num_events}", url=webhook.url, job=job, attempt=attempt)


def settle_webhook(database: Database, due: Due, problem: str | None) -> None:
    """Write how a try went: problem is why it failed. A job that is gone by now is nobody's."""
    with database.writing() as session:
        webhook = session.get(Webhook, due.job.id, with_for_update=True)
        if webhook is None or webhook.num_attempts != due.attempt:
            return
        webhook.error = problem
        if problem is not None and due.attempt <= len(RETRY_SECONDS):
            webhook.due_at = now() + RETRY_SECONDS[due.attempt - 1]
            return
        webhook.told_events, webhook.num_attempts = due.job.num_events, 0
        webhook.due_at = now()
        if problem is None:
            webhook.delivered_at = now()


def find_webhook(database: Database, job_id: str) -> Webhook | None:
    with database.reading() as session:
        return session.get(Webhook, job_id)
