"""Which job is claimed next: priorities, and owners with a limit."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.contract.status import Priority, Status
from service.record.claims import Claim, claim_job, release_job, succeed_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import list_jobs
from service.record.keys import create_key, revoke_key

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeJob = Callable[..., Job]
TakeClaim = Callable[..., Claim]


def try_claim(database: Database) -> Claim | None:
    return claim_job(database, worker="here:1", lease_seconds=30, max_lost_attempts=2)


def limited(database: Database, max_running: int, name: str = "limited") -> str:
    """The id of a key."""
    return create_key(database, name, max_running=max_running)[0].id


def test_urgent_jobs_first_and_the_oldest_of_each(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    made: dict[Priority, list[str]] = {}
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH):
        made.setdefault(priority, []).append(make_job(priority=priority).id)
        time.sleep(0.002)  # SQLite's clock counts milliseconds
    claimed = [claim().job_id for _ in range(5)]
    assert claimed == made[Priority.HIGH] + made[Priority.NORMAL] + made[Priority.LOW]


def test_what_was_begun_goes_before_what_is_urgent(
    make_job: MakeJob, claim: TakeClaim, lapse: Callable[[str], None]
) -> None:
    begun = make_job(priority=Priority.LOW)
    claim()
    make_job(priority=Priority.HIGH)
    lapse(begun.id)
    assert claim() == Claim(job_id=begun.id, attempt=2)


def test_an_owner_at_its_limit_waits_and_keeps_nobody_waiting(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    greedy, other = limited(database, 2), limited(database, 9, "other")
    mine = [make_job(owner=greedy, priority=Priority.HIGH).id for _ in range(4)]
    theirs = [make_job().id, make_job(owner=other, priority=Priority.LOW).id]
    first, second = claim(), claim()
    assert {first.job_id, second.job_id} < set(mine)
    assert [claim().job_id for _ in theirs] == theirs
    assert try_claim(database) is None
    succeed_job(database, first, {})
    third = claim()
    assert third.job_id in mine
    assert try_claim(database) is None
    release_job(database, second)  # which makes room, and may be the next again
    assert claim().job_id in mine
    assert try_claim(database) is None


def test_among_those_with_room_the_queue_goes_on_by_priority_and_age(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    full = limited(database, 1)
    make_job(owner=full, priority=Priority.HIGH)
    claim()
    make_job(owner=full, priority=Priority.HIGH)
    expected = []
    for number, priority in enumerate((Priority.HIGH, Priority.NORMAL, Priority.LOW)):
        for owner in ("", limited(database, 9, f"key {number}")):
            expected.append(make_job(owner=owner, priority=priority).id)
            time.sleep(0.002)
    assert [claim().job_id for _ in expected] == expected
    assert try_claim(database) is None


def test_a_lost_job_of_an_owner_at_its_limit_goes_on(
    database: Database, make_job: MakeJob, claim: TakeClaim, lapse: Callable[[str], None]
) -> None:
    owner = limited(database, 1)
    jobs = [make_job(owner=owner).id for _ in range(2)]
    held = claim()
    lapse(held.job_id)
    assert claim() == Claim(job_id=held.job_id, attempt=2)
    assert try_claim(database) is None
    assert held.job_id in jobs


def test_a_revoked_key_keeps_its_limit(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    owner = limited(database, 1)
    for _ in range(2):
        make_job(owner=owner)
    revoke_key(database, owner)
    claim()
    assert try_claim(database) is None


def test_two_workers_never_share_the_last_place(database: Database, make_job: MakeJob) -> None:
    """Many claim at once what three owners have queued; between the claims, some end."""
    limits = {limited(database, number, f"key {number}"): number for number in (1, 2, 3)}
    jobs = [make_job(owner=owner).id for owner in limits for _ in range(12)]
    jobs += [make_job().id for _ in range(6)]
    barrier = threading.Barrier(6)
    over: list[str] = []

    def check() -> None:
        running = Counter(job.owner for job, _ in list_jobs(database, status=Status.RUNNING))
        over.extend(owner for owner, limit in limits.items() if running[owner] > limit)

    def work() -> list[str]:
        barrier.wait(10)
        done: list[str] = []
        idle = 0
        while idle < 20:
            held = try_claim(database)
            if held is None:
                idle += 1
                time.sleep(0.01)
                continue
            idle = 0
            check()
            succeed_job(database, held, {})
            done.append(held.job_id)
        return done

    with ThreadPoolExecutor(6) as pool:
        found = [job_id for done in pool.map(lambda _: work(), range(6)) for job_id in done]
    assert over == []
    assert Counter(found) == Counter(jobs)
