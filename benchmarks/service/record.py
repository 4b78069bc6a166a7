"""What lists of jobs, claims and metrics take with many jobs in the record, and their query plans.

    python -m benchmarks.service.record [--postgresql URL] [--json]

Over a new SQLite file, and a new database of the PostgreSQL server at URL; both are removed. Lists
are read as GET /jobs reads them, 100 jobs a page, the first page and one behind nine tenths of the
jobs. Then one worker claims queued jobs, one after the other. Times are on the clock, after a
warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Select, select

from benchmarks.service.record_rows import SOME_DATASET, explain, fill, new_database
from benchmarks.shared.machine import describe_machine
from service.contract.status import Status
from service.record.claims import claim_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import Position, find_job, list_jobs
from service.record.statistics import read_statistics

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "status": {"status": Status.SUCCEEDED},
    "dataset": {"dataset_id": SOME_DATASET},
    "status and dataset": {"status": Status.SUCCEEDED, "dataset_id": SOME_DATASET},
}
_PAGE = 100
_WARM_UP = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """Milliseconds of one kind of look-up or claim."""

    database: str
    num_jobs: int
    what: str
    p50: float
    p99: float
    plans: list[str]
    """Of its SELECT statements, as the database explains them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--postgresql", metavar="URL", help="measure on this server too")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--queued", type=int, default=10_000, help="jobs waiting to be claimed")
    parser.add_argument("--repeats", type=int, default=300, help="how often each is timed")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for url in (None, arguments.postgresql) if arguments.postgresql else (None,):
        for num_jobs in arguments.jobs:
            with _database(url) as database:
                num_queued = min(arguments.queued, num_jobs // 2)
                fill(database, num_jobs=num_jobs, num_queued=num_queued)
                for row in measure(database, num_jobs, repeats=arguments.repeats):
                    rows.append(row)
                    print(
                        f"{row.database:10} {row.num_jobs:7} jobs  {row.what:32} "
                        f"p50 {row.p50:6.2f} ms  p99 {row.p99:6.2f} ms"
                    )
    for row in rows:
        if row.num_jobs == max(arguments.jobs):
            print(f"\n{row.database}, {row.num_jobs} jobs: {row.what}")
            print("\n".join(row.plans))
    if arguments.json:
        machine = describe_machine() | {"load": round(os.getloadavg()[0], 2)}
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}))


def measure(database: Database, num_jobs: int, *, repeats: int) -> Iterator[Row]:
    """Each list, a single job, and claims for as long as jobs are queued."""
    for what, action in look_ups(database).items():
        times = [_milliseconds(action) for _ in range(_WARM_UP + repeats)]
        yield _row(database, num_jobs, what, times[_WARM_UP:], explain(database, action))

    def claim() -> None:
        found = claim_job(database, worker="here:1", lease_seconds=600, max_lost_attempts=3)
        assert found is not None

    plans = explain(database, claim)
    times = [_milliseconds(claim) for _ in range(_WARM_UP + min(repeats, num_jobs // 2 - 10))]
    yield _row(database, num_jobs, "claim", times[_WARM_UP:], plans)


def look_ups(database: Database) -> dict[str, Callable[[], object]]:
    """What is timed: each list, its first page and a deep one, and a single job."""
    actions: dict[str, Callable[[], object]] = {}
    for name, filters in FILTERS.items():
        deep = _deep_position(database, filters)
        actions[f"list, {name}"] = lambda f=filters: list_jobs(database, limit=_PAGE, **f)
        actions[f"list, {name}, deep"] = lambda f=filters, after=deep: list_jobs(
            database, limit=_PAGE, after=after, **f
        )
    ((newest, _),) = list_jobs(database, limit=1)
    actions["one job"] = lambda: find_job(database, newest.id)
    actions["metrics"] = lambda: read_statistics(database)
    return actions


def _deep_position(database: Database, filters: dict[str, Any]) -> Position:
    """Behind nine tenths of what the filter lets through."""
    wanted: Select[Job] = select(Job).filter_by(**filters).order_by(Job.created_at, Job.id)
    with database.reading() as session:
        ids = session.scalars(wanted.with_only_columns(Job.id)).all()
        job = session.get_one(Job, ids[len(ids) // 10])
    return Position(created_at=job.created_at, job_id=job.id)


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def _row(
    database: Database, num_jobs: int, what: str, times: list[float], plans: list[str]
) -> Row:
    times = sorted(times)
    return Row(
        database="SQLite" if database.is_embedded else "PostgreSQL",
        num_jobs=num_jobs,
        what=what,
        p50=times[len(times) // 2],
        p99=times[min(len(times) - 1, len(times) * 99 // 100)],
        plans=plans,
    )


@contextmanager
def _database(server_url: str | None) -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as directory:
        if server_url is None:
            yield from _upgraded(f"sqlite:///{directory}/tinyfit.db")
        else:
            with new_database(server_url) as url:
                yield from _upgraded(url)


def _upgraded(url: str) -> Iterator[Database]:
    database = Database(url)
    database.upgrade()
    try:
        yield database
    finally:
        database.close()


if __name__ == "__main__":
    main()
