from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from service.record.db.database import Database, now
from service.record.db.models import WorkerPresence
from service.record.presence import list_workers, mark_gone, mark_seen

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def seen_ago(database: Database, worker_id: str, seconds: float) -> None:
    with database.writing() as session:
        session.execute(
            update(WorkerPresence)
            .where(WorkerPresence.id == worker_id)
            .values(seen_at=now() - seconds)
        )


def test_a_worker_is_up_from_its_first_sign_to_its_last(database: Database) -> None:
    mark_seen(database, "w1", "here:1")
    (first,) = list_workers(database, 10)
    assert (first.id, first.name) == ("w1", "here:1")
    mark_seen(database, "w2", "there:2")
    mark_seen(database, "w1", "here:1")
    again, other = list_workers(database, 10)
    assert (again.id, other.id) == ("w1", "w2")
    assert again.started_at == first.started_at
    assert again.seen_at >= other.seen_at
    mark_gone(database, "w1")
    assert [worker.id for worker in list_workers(database, 10)] == ["w2"]
    mark_gone(database, "w1")


def test_a_silent_worker_is_not_listed_and_after_a_day_forgotten(database: Database) -> None:
    for worker_id in ("silent", "gone"):
        mark_seen(database, worker_id, "here:1")
    seen_ago(database, "silent", 60)
    seen_ago(database, "gone", 25 * 3600)
    mark_seen(database, "awake", "here:2")
    assert [worker.id for worker in list_workers(database, 30)] == ["awake"]
    everything = list_workers(database, 30 * 24 * 3600)
    assert {worker.id for worker in everything} == {"awake", "silent"}


def test_many_workers_wake_at_once_after_a_long_sleep(database: Database) -> None:
    workers = [f"w{number}" for number in range(8)]
    for worker_id in workers:
        mark_seen(database, worker_id, "here:1")
    for _ in range(5):
        for worker_id in workers:
            seen_ago(database, worker_id, 25 * 3600)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda worker_id: mark_seen(database, worker_id, "here:1"), workers))
        assert {worker.id for worker in list_workers(database, 10)} <= set(workers)
        assert len(list_workers(database, 10)) >= 1
        for worker_id in workers:
            mark_seen(database, worker_id, "here:1")
        assert {worker.id for worker in list_workers(database, 10)} == set(workers)
