"""What jobs can take over from each other: adapted supernets, and what was scored with them."""

from __future__ import annotations

import json

from sqlalchemy import select
from sqlalchemy.orm import aliased, undefer

from service.record.db.database import Database
from service.record.db.models import Artifact, Trial
from service.record.files.artifacts import ADAPTED

_AT_ONCE = 500


def list_adapted(database: Database, key: str) -> list[Artifact]:
    """The adapted supernets of this key, the newest first."""
    with database.reading() as session:
        newest_first = (
            select(Artifact)
            .where(Artifact.key == key, Artifact.kind == ADAPTED)
            .order_by(Artifact.created_at.desc(), Artifact.job_id)
        )
        return list(session.scalars(newest_first))


def list_scores(database: Database, adapted: Artifact, *, limit: int) -> list[Trial]:
    """Complete trials of whatever job scored them with a supernet of this content, one of each
    choice, with which images were right: the latest ones, in the order of their end.
    """
    scored_with = aliased(Artifact)
    latest_first = (
        select(Trial)
        .join(scored_with, scored_with.job_id == Trial.job_id)
        .where(
            scored_with.kind == adapted.kind,
            scored_with.key == adapted.key,
            scored_with.sha256 == adapted.sha256,
            Trial.is_complete,
            Trial.correct.is_not(None),
        )
        .order_by(Trial.finished_at.desc(), Trial.job_id, Trial.number.desc())
        .options(undefer(Trial.correct))
        .execution_options(yield_per=_AT_ONCE)
    )
    found: dict[str, Trial] = {}
    with database.reading() as session:
        for trial in session.scalars(latest_first):
            found.setdefault(_choice(trial), trial)
            if len(found) == limit:
                break
    return list(found.values())[::-1]


def _choice(trial: Trial) -> str:
    """The candidate apart from its plan, on which its accuracy does not depend."""
    chosen = {name: value for name, value in trial.candidate.items() if name != "plan"}
    return json.dumps(chosen, sort_keys=True)
