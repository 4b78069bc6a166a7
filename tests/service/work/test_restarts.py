"""PostgreSQL is restarted while a job's process is in the midst of a transaction."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.contract.status import Outcome, Status
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.events import list_events
from service.record.jobs import get_job, list_attempts
from service.settings import Settings
from tests.service.support.own_postgresql import Server, own_postgresql
from tests.service.support.processes import FAKE_CHILD, RUN_WORKER, descendants, is_alive, wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_postgresql(user="tinyfit", password="secret", database="tinyfit") as server:
        yield server


@pytest.fixture
def database_url(server: Server) -> str:
    return f"postgresql://tinyfit:secret@127.0.0.1:{server.port}/tinyfit"


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    settings.data_dir.mkdir()
    database = Database(settings.resolved_database_url, patience_seconds=10)
    database.upgrade()
    yield database
    database.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_what_a_restart_breaks_off_is_done_again(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    server: Server,
    mode: str,
    tmp_path: Path,
) -> None:
    job = make_job("midst")
    midst = settings.data_dir / "midst"
    command = [sys.executable, "-c", RUN_WORKER, settings.model_dump_json(), *FAKE_CHILD]
    worker = subprocess.Popen(command)
    try:
        wait_for(midst.exists)
        started = descendants(worker.pid)
        server.restart(mode)
        midst.unlink()
        wait_for(lambda: not any(map(is_alive, started)))
        wait_for(lambda: status(database, job.id) is Status.SUCCEEDED)
        assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    outcomes = [attempt.outcome for attempt in list_attempts(database, job.id)]
    assert outcomes == [Outcome.RELEASED, Outcome.SUCCEEDED]  # nobody died
    told = [event.detail.get("status") for event in list_events(database, job.id)]
    assert told == ["queued", "running", "queued", "running", None, "succeeded"]


def status(database: Database, job_id: str) -> Status:
    return get_job(database, job_id).status
