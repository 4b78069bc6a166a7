"""The worker with real child processes, whose jobs train nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.contract.status import Outcome, Status
from service.record.claims import Claim, claim_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import cancel_job, get_job, list_attempts, pause_job
from service.record.presence import list_workers
from service.settings import Settings
from service.work import worker as worker_module
from service.work.worker import Worker
from tests.service.support.processes import FAKE_CHILD, RUN_WORKER, is_alive, wait_for

MakeJob = Callable[..., Job]
Pids = Callable[[], list[int]]
StartWorker = Callable[..., threading.Thread]


@pytest.fixture
def fast(settings: Settings) -> Settings:
    changed = {"lease_seconds": 1.0, "poll_seconds": 0.05, "stop_grace_seconds": 1.0}
    return settings.model_copy(update=changed)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def make_worker(
    fast: Settings, database: Database, stop: threading.Event
) -> Callable[..., Worker]:
    def make(**changed: object) -> Worker:
        settings = fast.model_copy(update=changed)
        return Worker(settings, database, stop=stop, command=FAKE_CHILD)

    return make


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


@pytest.fixture
def start(stop: threading.Event) -> Iterator[StartWorker]:
    """Runs something in a thread, which has ended when the test has."""
    threads: list[threading.Thread] = []

    def start(target: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=target))
        threads[-1].start()
        return threads[-1]

    yield start
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def pids(settings: Settings) -> Pids:
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


def is_calm() -> bool:
    """Whether this machine has time for what is asked of it."""
    return os.getloadavg()[0] < 2 * (os.cpu_count() or 1)


def test_no_job_no_work(worker: Worker) -> None:
    assert worker.run_one() is False


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("quick", Status.SUCCEEDED, None),
        ("refuse", Status.FAILED, "no such luck"),
        ("full", Status.FAILED, f"the disk of its worker ({socket.gethostname()}) is full"),
        ("crash", Status.FAILED, "unexpected RuntimeError: a defect; the worker's log has"),
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
        assert (found.error or "").startswith(error)


def test_a_child_that_dies_is_tried_again_and_then_given_up(
    make_worker: Callable[..., Worker], database: Database, make_job: MakeJob
) -> None:
    job = make_job("die")
    worker = make_worker(max_lost_attempts=1)
    assert worker.run_one()
    assert get_job(database, job.id).status is Status.QUEUED
    assert worker.run_one()
    assert not worker.run_one()
    found = get_job(database, job.id)
    assert found.status is Status.FAILED
    assert "died more than 1 times" in (found.error or "")


def test_a_child_that_gets_no_further_is_killed_and_the_job_tried_again(
    make_worker: Callable[..., Worker], database: Database, make_job: MakeJob, pids: Pids
) -> None:
    job = make_job("stall")
    assert make_worker(stall_seconds=15.0).run_one()  # it has to start within that time
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.QUEUED, 1)
    wait_for(lambda: not any(map(is_alive, pids())))


def test_a_child_that_gets_on_keeps_its_lease(
    make_worker: Callable[..., Worker],
    database: Database,
    make_job: MakeJob,
    start: StartWorker,
    pids: Pids,
) -> None:
    """It lasts longer than the lease, and longer than a child may be silent."""
    job = make_job("endless")
    start(make_worker(stall_seconds=10.0).run)  # it has to start within that time
    pids()
    until = time.monotonic() + 10.5
    while time.monotonic() < until:
        assert claim_job(database, worker="x", lease_seconds=1, max_lost_attempts=9) is None
        time.sleep(0.1)
    found = get_job(database, job.id)
    assert (found.status, found.attempt) == (Status.RUNNING, 1)


def test_nobody_waits_for_a_parent_that_does_not_listen(tmp_path: Path) -> None:
    script = (
        "import itertools, os; from service.work.processes.lifeline import Beats\n"
        "beats = Beats(clock=itertools.count().__next__)\n"
        "for _ in range(100_000): beats.beat()\n"
        "print('stray', flush=True); os.write(2, b'done')"
    )
    words = tmp_path / "words"
    command = [sys.executable, "-c", script]
    with (
        words.open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout is not None
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert set(process.stdout.read()) == {ord(".")}
    assert words.read_bytes() == b"stray\ndone"


@pytest.mark.parametrize(
    ("request_stop", "status"),
    [(cancel_job, Status.CANCELLED), (pause_job, Status.PAUSED)],
)
@pytest.mark.parametrize("name", ["endless", "ignore", "fragile"])
def test_a_wish_to_stop_is_met_within_two_seconds(
    make_worker: Callable[..., Worker],
    database: Database,
    make_job: MakeJob,
    start: StartWorker,
    pids: Pids,
    request_stop: Callable[[Database, str], Job],
    status: Status,
    name: str,
) -> None:
    """Whether the child stops, ignores it, or breaks off as what it had started did."""
    job = make_job(name)
    worker = make_worker(poll_seconds=Settings().poll_seconds, lease_seconds=30.0)
    start(worker.run_one)
    processes = pids()
    asked = time.monotonic()
    assert request_stop(database, job.id).status is Status.RUNNING
    wait_for(lambda: get_job(database, job.id).status is not Status.RUNNING)
    assert time.monotonic() - asked < (2.0 if is_calm() else 10.0)
    found = get_job(database, job.id)
    assert (found.status, found.error) == (status, None)
    wait_for(lambda: not any(map(is_alive, processes)))


def test_a_child_stands_back_behind_others(
    make_worker: Callable[..., Worker], make_job: MakeJob, start: StartWorker, pids: Pids
) -> None:
    make_job("endless")
    start(make_worker(job_niceness=7).run)
    processes = pids()
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in processes] == [7, 7]
    for pid in processes:
        session = Path(f"/proc/{pid}/autogroup")  # where Linux schedules by session
        assert not session.exists() or session.read_text().endswith(" nice 7\n")


@pytest.mark.parametrize("name", ["endless", "fragile"])
def test_a_stopping_worker_puts_its_job_back(
    worker: Worker,
    database: Database,
    make_job: MakeJob,
    stop: threading.Event,
    start: StartWorker,
    pids: Pids,
    name: str,
) -> None:
    job = make_job(name)
    thread = start(worker.run)
    processes = pids()
    (present,) = list_workers(database, 60)
    assert (present.id, present.name) == (worker.id, worker.name)
    stop.set()
    thread.join(10)
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.QUEUED, 0)
    assert list_workers(database, 60) == []
    wait_for(lambda: not any(map(is_alive, processes)))


def test_after_kill_9_another_worker_goes_on(
    database: Database,
    make_job: MakeJob,
    settings: Settings,
    worker_process: Callable[[], subprocess.Popen[bytes]],
    pids: Pids,
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
    start: StartWorker,
    pids: Pids,
    claim: Callable[[], Claim],
) -> None:
    job = make_job("endless")
    thread = start(worker.run_one)
    processes = pids()
    with database.writing() as session:
        row = session.get_one(Job, job.id)
        row.lease_expires_at = 0.0
        row.attempt += 1
    thread.join(10)
    assert not thread.is_alive()
    wait_for(lambda: not any(map(is_alive, processes)))
    assert claim().attempt == 3


def test_a_child_without_its_database_is_not_counted_as_lost(
    worker: Worker, database: Database, make_job: MakeJob
) -> None:
    job = make_job("outage")
    assert worker.run_one()
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.QUEUED, 0)
    assert worker.run_one()
    found = get_job(database, job.id)
    assert (found.status, found.attempt) == (Status.SUCCEEDED, 2)


def test_a_child_without_its_cluster_is_not_counted_as_lost(
    worker: Worker, database: Database, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_CLUSTER_PAUSE_SECONDS", 1.0)
    job = make_job("adrift")
    started = time.monotonic()
    assert worker.run_one()
    assert time.monotonic() - started > 1.0
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.QUEUED, 0)
    assert worker.run_one()
    found = get_job(database, job.id)
    assert (found.status, found.attempt) == (Status.SUCCEEDED, 2)


def test_a_child_whose_tasks_die_is_counted_as_lost(
    worker: Worker, database: Database, make_job: MakeJob
) -> None:
    job = make_job("bereft")
    assert worker.run_one()
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.QUEUED, 1)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_cut_off_in_the_midst_of_work_do_no_harm(
    worker: Worker,
    settings: Settings,
    database: Database,
    make_job: MakeJob,
    start: StartWorker,
) -> None:
    settings.data_dir.mkdir()
    job = make_job("midst")
    start(worker.run)
    midst = settings.data_dir / "midst"
    wait_for(midst.exists)
    with database.reading() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    midst.unlink()
    wait_for(lambda: get_job(database, job.id).status is Status.SUCCEEDED)
    found = get_job(database, job.id)
    assert (found.attempt, found.lost_attempts) == (2, 0)
    outcomes = [attempt.outcome for attempt in list_attempts(database, job.id)]
    assert outcomes == [Outcome.RELEASED, Outcome.SUCCEEDED]


def test_a_worker_tidies_up_between_jobs(
    make_worker: Callable[..., Worker],
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if there is always one more."""
    monkeypatch.setattr(worker_module, "_SWEEP_SECONDS", 0.0)
    happened: list[str] = []
    monkeypatch.setattr(worker_module, "clear_out", lambda *_: happened.append("tidied"))
    worker = make_worker()

    def work() -> bool:
        happened.append("worked")
        if happened.count("worked") == 3:
            stop.set()
        return True

    monkeypatch.setattr(worker, "run_one", work)
    worker.run()
    assert happened == ["tidied", "worked"] * 3


def test_a_worker_removes_what_killed_uploads_left(
    worker: Worker, settings: Settings, start: StartWorker
) -> None:
    left = settings.incoming_dir / "left.zip"
    left.parent.mkdir()
    left.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(left, (two_days_ago, two_days_ago))
    start(worker.run)
    wait_for(lambda: not left.exists())


def test_files_that_can_not_be_removed_keep_nobody_from_working(
    worker: Worker,
    settings: Settings,
    database: Database,
    make_job: MakeJob,
    start: StartWorker,
) -> None:
    settings.jobs_dir.write_text("not a folder")
    job = make_job("quick")
    start(worker.run)
    wait_for(lambda: get_job(database, job.id).status is Status.SUCCEEDED)


def out_for(calls: int, function: Callable[..., object]) -> Callable[..., object]:
    """function, but for so many calls the database does not answer."""
    left = iter(range(calls))

    def flaky(*arguments: object, **options: object) -> object:
        if next(left, None) is not None:
            raise OperationalError("SELECT", None, Exception("gone"), connection_invalidated=True)
        return function(*arguments, **options)

    return flaky


@pytest.mark.parametrize("name", ["claim_job", "mark_seen", "stop_request", "release_job"])
def test_a_worker_outlasts_its_database(
    worker: Worker,
    database: Database,
    make_job: MakeJob,
    start: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(worker_module, name, out_for(3, getattr(worker_module, name)))
    job = make_job("outage")
    start(worker.run)
    wait_for(lambda: get_job(database, job.id).status is Status.SUCCEEDED)
    found = get_job(database, job.id)
    assert (found.attempt, found.lost_attempts) == (2, 0)
