import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.database import Database
from service.jobs import claim_job, get_job, request_cancel
from service.models import Job, Status
from service.settings import Settings
from service.worker import Worker

MakeJob = Callable[..., Job]
FAKE_CHILD = (sys.executable, str(Path(__file__).with_name("fake_child.py")))
RUN_WORKER = """
import sys, threading
from service.database import Database
from service.settings import Settings
from service.worker import Worker
settings = Settings.model_validate_json(sys.argv[1])
database = Database(settings.resolved_database_url)
Worker(settings, database, stop=threading.Event(), command=sys.argv[2:]).run()
"""


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def fast(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"lease_seconds": 1.0, "poll_seconds": 0.05, "stop_grace_seconds": 1.0}
    )


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def worker(fast: Settings, database: Database, stop: threading.Event) -> Worker:
    return Worker(fast, database, stop=stop, command=FAKE_CHILD)


@pytest.fixture
def pids(settings: Settings) -> Callable[[], list[int]]:
    """Waits for the child and its own child to be up, and gives their process ids."""
    path = settings.data_dir / "pids"

    def read() -> list[int]:
        wait_for(path.exists)
        found = [int(pid) for pid in path.read_text().split()]
        path.unlink()
        return found

    return read


@pytest.fixture
def worker_process(fast: Settings) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUN_WORKER, fast.model_dump_json(), *FAKE_CHILD]
        started.append(subprocess.Popen(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_no_job_no_work(worker: Worker) -> None:
    assert worker.run_one() is False


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("quick", Status.SUCCEEDED, None),
        ("refuse", Status.FAILED, "no such luck"),
        ("crash", Status.FAILED, "unexpected RuntimeError: a defect; the"),
    ],
)
def test_a_job_ends_as_its_child_says(
    worker: Worker,
    database: Database,
    make_job: MakeJob,
    name: str,
    status: Status,
    error: str | None,
) -> None:
    job = make_job(name)
    assert worker.run_one()
    found = get_job(database, job.id)
    assert found.status is status
    if error is None:
        assert found.error is None
    else:
        assert (found.error or "").startswith(error[:35])


def test_a_child_that_dies_is_tried_again_and_then_given_up(
    fast: Settings, database: Database, make_job: MakeJob, stop: threading.Event
) -> None:
    job = make_job("die")
    once_more = fast.model_copy(update={"max_lost_attempts": 1})
    worker = Worker(once_more, database, stop=stop, command=FAKE_CHILD)
    assert worker.run_one()
    assert get_job(database, job.id).status is Status.QUEUED
    assert worker.run_one()
    assert not worker.run_one()
    found = get_job(database, job.id)
    assert found.status is Status.FAILED
    assert "died more than 1 times" in (found.error or "")


@pytest.mark.parametrize("name", ["endless", "ignore"])
def test_cancel_ends_the_child_and_all_it_started(
    worker: Worker,
    database: Database,
    make_job: MakeJob,
    pids: Callable[[], list[int]],
    name: str,
) -> None:
    job = make_job(name)
    thread = threading.Thread(target=worker.run_one)
    thread.start()
    processes = pids()
    assert request_cancel(database, job.id).status is Status.RUNNING
    thread.join(10)
    assert get_job(database, job.id).status is Status.CANCELLED
    wait_for(lambda: not any(map(is_alive, processes)))


def test_a_stopping_worker_puts_its_job_back(
    worker: Worker,
    database: Database,
    make_job: MakeJob,
    stop: threading.Event,
    pids: Callable[[], list[int]],
) -> None:
    job = make_job("endless")
    thread = threading.Thread(target=worker.run)
    thread.start()
    processes = pids()
    stop.set()
    thread.join(10)
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.QUEUED, 0)
    wait_for(lambda: not any(map(is_alive, processes)))


def test_after_kill_9_another_worker_goes_on(
    database: Database,
    make_job: MakeJob,
    settings: Settings,
    worker_process: Callable[[], subprocess.Popen[bytes]],
    pids: Callable[[], list[int]],
) -> None:
    job = make_job("slow")
    first = worker_process()
    processes = pids()
    steps = settings.data_dir / f"{job.id}.steps"
    wait_for(steps.exists)
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, processes)))
    assert get_job(database, job.id).status is Status.RUNNING
    worker_process()
    wait_for(lambda: get_job(database, job.id).status is Status.SUCCEEDED)
    found = get_job(database, job.id)
    assert (found.attempt, found.lost_attempts) == (2, 1)
    assert steps.read_text() == "0123"


def test_a_worker_that_lost_its_lease_ends_its_child(
    worker: Worker,
    database: Database,
    make_job: MakeJob,
    pids: Callable[[], list[int]],
) -> None:
    job = make_job("endless")
    thread = threading.Thread(target=worker.run_one)
    thread.start()
    processes = pids()
    with database.writing() as session:
        row = session.get_one(Job, job.id)
        row.lease_expires_at = 0.0
        row.attempt += 1
    thread.join(10)
    assert not thread.is_alive()
    wait_for(lambda: not any(map(is_alive, processes)))
    claimed = claim_job(database, lease_seconds=1, max_lost_attempts=9)
    assert claimed is not None
    assert claimed.attempt == 3
