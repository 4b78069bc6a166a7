"""Numbers over all jobs, for whoever watches an installation.

All but the number of jobs are of what waits now or has ended lately, so that they cost the same
however long the record is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ScalarSelect, Select, func, select
from sqlalchemy.orm import Session

from service.contract.status import Outcome, Priority, Status
from service.record.db.database import Database, now, pinned
from service.record.db.models import Attempt, Job, StageTime, Trial

_LATELY_SECONDS = 3600.0
_SCORING_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class FinishedStages:
    """How often a stage was finished within the last hour, and how long that took altogether."""

    num: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """As of one moment; deleted jobs don't count."""

    num_jobs: Mapping[Status, int]
    num_queued: Mapping[Priority, int]
    queue_age_seconds: float
    """How long ago the oldest queued job was made; 0 where none is queued."""
    num_ended_attempts: Mapping[Outcome, int]
    """Within the last hour."""
    finished_stages: Mapping[str, FinishedStages]
    trials_per_minute: float
    """Over the last five minutes."""


def read_statistics(database: Database) -> Statistics:
    with database.reading() as session:
        is_queued = pinned((Job.status, Status.QUEUED))
        queued = select(Job.priority, func.count()).where(is_queued).group_by(Job.priority)
        oldest = select(now() - func.min(Job.created_at)).where(Job.status == Status.QUEUED)
        ended = (
            select(Attempt.outcome, func.count())
            .where(Attempt.ended_at >= _ago(_LATELY_SECONDS))
            .group_by(Attempt.outcome)
        )
        return Statistics(
            num_jobs=_counts(session, select(Job.status, func.count()).group_by(Job.status)),
            num_queued=_counts(session, queued),
            queue_age_seconds=session.scalar(oldest) or 0.0,
            num_ended_attempts=_counts(session, ended),
            finished_stages=_finished_stages(session),
            trials_per_minute=_num_trials(session) * 60 / _SCORING_SECONDS,
        )


def _counts(session: Session, counts: Select[Any, int]) -> dict[Any, int]:
    return {row[0]: row[1] for row in session.execute(counts)}


def _finished_stages(session: Session) -> dict[str, FinishedStages]:
    stages = (
        select(
            StageTime.stage,
            func.count().label("num"),
            func.sum(StageTime.ended_at - StageTime.started_at).label("seconds"),
        )
        .where(StageTime.ended_at >= _ago(_LATELY_SECONDS))
        .group_by(StageTime.stage)
    )
    return {
        row.stage: FinishedStages(num=row.num, seconds=row.seconds)
        for row in session.execute(stages)
    }


def _num_trials(session: Session) -> int:
    """Scored lately, by the jobs themselves."""
    scored = select(func.count()).where(
        Trial.finished_at >= _ago(_SCORING_SECONDS), Trial.reused.is_(False)
    )
    return session.scalars(scored).one()


def _ago(seconds: float) -> ScalarSelect[float]:
    """As a query of its own: else PostgreSQL asks its clock for every row, and uses no index."""
    return select(now() - seconds).scalar_subquery()
