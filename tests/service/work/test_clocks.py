"""Clocks that are set while a job runs: a worker's, and the database's own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.contract.status import Outcome, Status
from service.record.db.database import Database, now
from service.record.db.models import Job
from service.record.events import list_events
from service.record.jobs import get_job, list_attempts
from service.settings import Settings
from tests.service.support.clocks import Clock, new_clock
from tests.service.support.own_postgresql import own_postgresql
from tests.service.support.processes import FAKE_CHILD, RUN_WORKER, descendants, is_alive, wait_for

pytestmark = pytest.mark.long

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def clock() -> Iterator[Clock]:
    with new_clock() as clock:
        yield clock


@pytest.fixture
def database_clock() -> Iterator[Clock]:
    with new_clock() as clock:
        yield clock


@pytest.fixture
def database_url(database_clock: Clock) -> Iterator[str]:
    environment = database_clock.environment
    with own_postgresql(
        user="tinyfit", password="secret", database="tinyfit", environment=environment
    ) as server:
        yield f"postgresql://tinyfit:secret@127.0.0.1:{server.port}/tinyfit"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        lease_seconds=1.5,
        poll_seconds=0.1,
        stop_grace_seconds=0.5,
    )


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts a worker; at the end all end in good order, and nothing of theirs is left."""
    workers: list[subprocess.Popen[bytes]] = []

    def start(clock: Clock | None = None) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", RUN_WORKER, settings.model_dump_json(), *FAKE_CHILD]
        environment = os.environ | (clock.environment if clock else {})
        workers.append(subprocess.Popen(command, env=environment))
        return workers[-1]

    yield start
    started = [pid for worker in workers for pid in descendants(worker.pid)]
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    # one that has just been started may not have come as far as to end in good order
    assert {worker.wait(30) for worker in workers} <= {0, -signal.SIGTERM}
    wait_for(lambda: not any(map(is_alive, started)))


def seconds_left(database: Database, job_id: str) -> float:
    """Of a running job's lease, by the database's clock."""
    with database.reading() as session:
        found = session.scalars(select(Job.lease_expires_at - now()).where(Job.id == job_id))
        return found.one() or 0.0


def seconds_of(database: Database) -> float:
    """What its clock shows."""
    with database.reading() as session:
        return session.scalars(select(now())).one()


def wait_for_renewals(database: Database, job_id: str) -> None:
    """Two of them, and the second is after whatever was done before this was called."""
    for _ in range(2):
        lease = get_job(database, job_id).lease_expires_at
        wait_for(lambda lease=lease: get_job(database, job_id).lease_expires_at != lease)


def outcomes(database: Database, job_id: str) -> list[Outcome | None]:
    told = [event.detail.get("status") for event in list_events(database, job_id)]
    assert told.count("succeeded") == 1
    return [attempt.outcome for attempt in list_attempts(database, job_id)]


def test_a_worker_whose_clock_is_set_keeps_its_job(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    clock: Clock,
    start: Start,
) -> None:
    job = make_job("midst")
    midst = settings.data_dir / "midst"
    start(clock)
    wait_for(midst.exists)
    start()  # would take what another has lost
    for hours in (5, -5):
        clock.set(hours=hours)
        wait_for_renewals(database, job.id)
        assert 0 < seconds_left(database, job.id) <= settings.lease_seconds
    midst.unlink()
    wait_for(lambda: get_job(database, job.id).status is Status.SUCCEEDED)
    assert outcomes(database, job.id) == [Outcome.SUCCEEDED]


@pytest.mark.parametrize("hours", [5, -5])
def test_whatever_the_database_clock_is_set_to_each_job_has_one_result(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    database_clock: Clock,
    start: Start,
    hours: float,
) -> None:
    """Set forward, all leases have run out: another worker may take the job over."""
    job = make_job("midst")
    midst = settings.data_dir / "midst"
    start()
    wait_for(midst.exists)
    start()
    before = seconds_of(database)
    database_clock.set(hours=hours)
    assert seconds_of(database) - before == pytest.approx(3600 * hours, abs=60)
    wait_for_renewals(database, job.id)
    assert 0 < seconds_left(database, job.id) <= settings.lease_seconds
    midst.unlink(missing_ok=True)
    next_job = make_job("next")
    for job_id in (job.id, next_job.id):
        wait_for(lambda job_id=job_id: get_job(database, job_id).status is Status.SUCCEEDED)
    assert outcomes(database, job.id) in (
        [Outcome.SUCCEEDED],
        [Outcome.LOST, Outcome.SUCCEEDED],
    )
    assert outcomes(database, next_job.id) == [Outcome.SUCCEEDED]


def test_a_process_with_such_a_clock_goes_by_it(clock: Clock) -> None:
    program = "import time; print(time.time(), time.monotonic())"
    clock.set(hours=5)
    told = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | clock.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    wall_clock, steady_clock = map(float, told.stdout.split())
    assert wall_clock == pytest.approx(time.time() + 5 * 3600, abs=30)
    assert steady_clock == pytest.approx(time.monotonic(), abs=30)
