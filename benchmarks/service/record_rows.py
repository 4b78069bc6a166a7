"""A record with many jobs, and how a database goes about what is asked of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, text
from sqlalchemy.engine import make_url

from service.contract.status import Outcome, Priority, Status
from service.record.db.database import Database
from service.record.db.models import Artifact, Attempt, Dataset, Job, StageTime
from service.record.files.artifacts import BUNDLE

NUM_DATASETS = 20
SOME_DATASET = "dataset-1"
_RARE_STATUSES = (Status.FAILED, Status.CANCELLED, Status.PAUSED)
_CHUNK = 5_000
_LITERALS = re.compile(r"\{[^}]*\}")


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """The URL of a new database on a PostgreSQL server, which is dropped at the end."""
    url = make_url(server_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"tinyfit_benchmark_{os.urandom(6).hex()}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        engine.dispose()


def fill(database: Database, *, num_jobs: int, num_queued: int) -> None:
    """Jobs a second apart, over 20 datasets: the last ones queued, of the others every ninth
    failed, cancelled or paused, four running, the rest succeeded."""
    with database.writing() as session:
        session.execute(insert(Dataset), [_dataset(number) for number in range(NUM_DATASETS)])
    for start in range(0, num_jobs, _CHUNK):
        numbers = range(start, min(start + _CHUNK, num_jobs))
        jobs = [_job(number, num_jobs, num_queued) for number in numbers]
        begun = [job for job in jobs if job["attempt"]]
        bundles = [_bundle(job) for job in jobs if job["status"] is Status.SUCCEEDED]
        with database.writing() as session:
            session.execute(insert(Job), jobs)
            if begun:
                session.execute(insert(Attempt), [_attempt(job) for job in begun])
                session.execute(insert(StageTime), [_stage_time(job) for job in begun])
            if bundles:
                session.execute(insert(Artifact), bundles)
    with database.writing() as session:
        session.execute(text("ANALYZE"))


def explain(database: Database, action: Callable[[], object]) -> list[str]:
    """The plans of the SELECT statements that the action sends, as the database puts them."""
    selects: list[tuple[str, Any]] = []

    def note(
        connection: Connection, cursor: Any, statement: str, parameters: Any, *others: object
    ) -> None:
        if statement.startswith("SELECT"):
            selects.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    prefix = "EXPLAIN QUERY PLAN" if database.is_embedded else "EXPLAIN (COSTS OFF)"
    plans = []
    with database.engine.connect() as connection:
        for statement, parameters in selects:
            found = connection.exec_driver_sql(f"{prefix} {statement}", parameters)
            plans.append(_LITERALS.sub("{...}", "\n".join(row[-1] for row in found)))
    return plans


def _dataset(number: int) -> dict[str, Any]:
    return {
        "id": f"dataset-{number}",
        "name": f"shapes {number}",
        "classes": ["circle", "square"],
        "counts": {},
        "num_images": 100,
        "num_bytes": 100_000,
        "created_at": float(number),
    }


def _job(number: int, num_jobs: int, num_queued: int) -> dict[str, Any]:
    status = Status.SUCCEEDED
    if number >= num_jobs - num_queued:
        status = Status.QUEUED
    elif number >= num_jobs - num_queued - 4:
        status = Status.RUNNING
    elif number % 9 == 0:
        status = _RARE_STATUSES[number // 9 % len(_RARE_STATUSES)]
    is_queued = status is Status.QUEUED
    return {
        "id": f"{number * 0x9E3779B97F4A7C15 % 2**64:032x}",
        "name": f"job {number}",
        "dataset_id": f"dataset-{number * 7 % NUM_DATASETS}",
        "memory_limit_bytes": 24_000_000,
        "supernet": "bundled",
        "method": "lite_residual+bias",
        "settings": {"epochs": 10, "trials": 30, "seed": number},
        "status": status,
        "progress": 1.0 if status is Status.SUCCEEDED else 0.0,
        "created_at": 1000.0 + number,
        "attempt": 0 if is_queued else 1,
        "lease_expires_at": 4e9 if status is Status.RUNNING else None,
        "priority": list(Priority)[number % 3],
        "owner": "",
        "num_events": 0,
        "result": {"resolution": 96, "trials": 30} if status is Status.SUCCEEDED else None,
    }


def _attempt(job: dict[str, Any]) -> dict[str, Any]:
    is_running = job["status"] is Status.RUNNING
    return {
        "job_id": job["id"],
        "number": 1,
        "worker": "here:1",
        "started_at": job["created_at"],
        "ended_at": None if is_running else job["created_at"] + 0.5,
        "outcome": None if is_running else Outcome.SUCCEEDED,
    }


def _stage_time(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": job["id"],
        "number": 1,
        "attempt": 1,
        "stage": "train",
        "started_at": job["created_at"],
        "ended_at": job["created_at"] + 0.5,
    }


def _bundle(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": job["id"],
        "kind": BUNDLE,
        "path": "1/model.zip",
        "num_bytes": 5_000_000,
        "sha256": job["id"] * 2,
        "detail": {},
        "attempt": 1,
        "created_at": job["created_at"] + 0.5,
    }
