"""Workers on hosts of their own, with a PostgreSQL that they reach over the network."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.network import Host, NoHostsError, new_host
from service.contract.status import EventKind, Outcome, Status
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.events import list_events
from service.record.jobs import find_job, get_job, list_attempts, list_jobs
from service.settings import Settings
from tests.service.support.own_postgresql import own_postgresql
from tests.service.support.processes import FAKE_CHILD, RUN_WORKER, descendants, is_alive, wait_for

pytestmark = pytest.mark.long

RUN_QUICK_WORKER = """
import signal, sys, threading
from service.record.claims import succeed_job
from service.record.db.database import Database
from service.settings import Settings
from service.work.worker import Worker

class QuickWorker(Worker):
    def _work_on(self, claim):  # in no process of its own
        return lambda: succeed_job(database, claim, {"worker": self.name})

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
settings = Settings.model_validate_json(sys.argv[1])
database = Database(settings.resolved_database_url)
sys.stdin.readline()
QuickWorker(settings, database, stop=stop).run()
"""


@dataclass
class Site:
    """Two hosts, the database between them, and the workers that were started there."""

    hosts: tuple[Host, Host]
    port: int
    settings: Settings
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(
        self, host: Host, program: str, *command: str, query: str = "", **options: Any
    ) -> "subprocess.Popen[bytes]":
        """query: what the database's URL ends with."""
        url = f"postgresql://tinyfit:secret@{host.server}:{self.port}/tinyfit{query}"
        settings = self.settings.model_copy(update={"database_url": url})
        worker = subprocess.Popen(
            [*host.prefix, sys.executable, "-c", program, settings.model_dump_json(), *command],
            stdin=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """In good order; whatever they had started is gone with them."""
        started = [pid for worker in self.workers for pid in descendants(worker.pid)]
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            assert worker.wait(30) == 0
            assert worker.stdin is not None
            worker.stdin.close()
        wait_for(lambda: not any(map(is_alive, started)))
        self.workers.clear()


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with ExitStack() as stack:
        try:
            yield stack.enter_context(new_host()), stack.enter_context(new_host())
        except NoHostsError as error:
            pytest.skip(str(error))


@pytest.fixture
def site(tmp_path: Path, hosts: tuple[Host, Host]) -> Iterator[Site]:
    addresses = [host.server for host in hosts]
    names = {"user": "tinyfit", "password": "secret", "database": "tinyfit"}
    with own_postgresql(**names, addresses=addresses) as server:
        (tmp_path / "data").mkdir()
        settings = Settings(
            data_dir=tmp_path / "data",
            database_url=f"postgresql://tinyfit:secret@127.0.0.1:{server.port}/tinyfit",
            lease_seconds=2.0,
            poll_seconds=0.1,
            stop_grace_seconds=0.5,
        )
        site = Site(hosts, server.port, settings)
        try:
            yield site
        finally:
            for worker in site.workers:
                if worker.poll() is None:
                    os.killpg(worker.pid, signal.SIGKILL)
                    worker.wait()


@pytest.fixture
def database(site: Site) -> Iterator[Database]:
    """Of the site, instead of the usual one."""
    database = Database(site.settings.resolved_database_url)
    database.upgrade()
    yield database
    database.close()


def test_two_hosts_race_for_many_jobs(
    site: Site, database: Database, make_job: Callable[..., Job]
) -> None:
    jobs = [make_job().id for _ in range(200)]
    racers = [site.start(host, RUN_QUICK_WORKER) for host in site.hosts]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    wait_for(lambda: not list_jobs(database, status=Status.QUEUED, limit=1), 120)
    site.stop()

    took: Counter[str] = Counter()
    for job_id in jobs:
        job, _ = find_job(database, job_id)
        (attempt,) = list_attempts(database, job_id)
        assert (job.status, attempt.outcome) == (Status.SUCCEEDED, Outcome.SUCCEEDED)
        assert job.result == {"worker": attempt.worker}
        took[attempt.worker] += 1
    assert len(took) == 2
    assert min(took.values()) > 20


def test_a_host_cut_off_for_longer_than_its_lease_changes_nothing(
    site: Site, database: Database, make_job: Callable[..., Job]
) -> None:
    """Its job's process goes on meanwhile, and what it sends arrives once it is too late."""
    near, far = site.hosts
    job = make_job("midst")
    midst = site.settings.data_dir / "midst"
    late = site.start(far, RUN_WORKER, *FAKE_CHILD)
    wait_for(midst.exists)
    started = descendants(late.pid)
    assert started
    far.cut()
    midst.unlink()  # now it writes
    site.start(near, RUN_WORKER, *FAKE_CHILD)
    wait_for(lambda: get_job(database, job.id).status is Status.SUCCEEDED)
    before = story(database, job.id)
    assert all(map(is_alive, started))

    far.mend()
    wait_for(lambda: not any(map(is_alive, started)), 60)
    assert story(database, job.id) == before
    assert [attempt.outcome for attempt in list_attempts(database, job.id)] == [
        Outcome.LOST,
        Outcome.SUCCEEDED,
    ]
    near.cut()
    next_job = make_job("next")
    wait_for(lambda: get_job(database, next_job.id).status is Status.SUCCEEDED, 60)
    (attempt,) = list_attempts(database, next_job.id)
    assert attempt.worker.endswith(f":{late.pid}")
    near.mend()
    site.stop()


def test_a_worker_finds_out_that_it_is_cut_off(
    site: Site, database: Database, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """Though it waits for a receipt, which Linux by itself does for a quarter of an hour."""
    host = site.hosts[0]
    make_job("endless")
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        query = "?tcp_user_timeout=1500"  # instead of 25 s
        site.start(host, RUN_WORKER, *FAKE_CHILD, query=query, stderr=stderr)
    wait_for((site.settings.data_dir / "pids").exists)
    host.cut()
    wait_for(lambda: "the database does not answer" in log.read_text(), 15)
    host.mend()
    site.stop()


def story(database: Database, job_id: str) -> tuple[object, ...]:
    job = get_job(database, job_id)
    events = list_events(database, job_id)
    results = [event for event in events if event.detail.get("status") == "succeeded"]
    assert [event.kind for event in results] == [EventKind.STATUS]
    columns = {column.name: getattr(job, column.name) for column in Job.__table__.columns}
    return columns, [(event.number, event.kind, event.attempt) for event in events]
