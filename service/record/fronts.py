"""A job's memory-accuracy front, from its trials."""

from __future__ import annotations

import math

from sqlalchemy import select

from service.record.db.database import Database
from service.record.db.models import Job, Trial


def list_front(database: Database, job: Job) -> list[Trial]:
    """The complete trials within the job's limits that are better than all of no more memory, by
    rising lean peak: more accurate, or as accurate at a lower loss. Of equal ones the earliest.
    """
    columns = select(Trial.number, Trial.accuracy, Trial.loss).where(
        Trial.job_id == job.id,
        Trial.is_complete,
        Trial.lean_peak_bytes <= job.memory_limit_bytes,
    )
    mac_limit = job.settings.get("mac_limit")
    if mac_limit is not None:
        columns = columns.where(Trial.macs <= mac_limit)
    in_order = columns.order_by(
        Trial.lean_peak_bytes, Trial.accuracy.desc(), Trial.loss.asc().nulls_last(), Trial.number
    )
    with database.reading() as session:
        numbers, best = [], (-1.0, -math.inf)
        for number, accuracy, loss in session.execute(in_order):
            merit = (accuracy, -math.inf if loss is None else -loss)
            if merit > best:
                numbers.append(number)
                best = merit
        found = select(Trial).where(Trial.job_id == job.id, Trial.number.in_(numbers))
        by_number = {trial.number: trial for trial in session.scalars(found)}
    return [by_number[number] for number in numbers]
