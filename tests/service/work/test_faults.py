"""What kills, sleeps and wishes to stop do to whole jobs: nothing that can be seen in the result.

Real workers and real trainings, tiny ones. A job's process stands still in the stage where the
fault is to hit it, as held_child.py says.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest, JobSettings
from service.contract.status import EventKind, Status
from service.datasets.store import import_dataset
from service.record.claims import Claim, fail_job
from service.record.db.database import Database
from service.record.events import list_events
from service.record.files.artifacts import ADAPTING
from service.record.files.blobs import open_blobs
from service.record.files.collecting import collect
from service.record.jobs import (
    cancel_job,
    create_job,
    find_job,
    get_job,
    list_attempts,
    list_trials,
    pause_job,
    resume_job,
    retry_job,
)
from service.settings import Settings
from service.work.job.progress import Stage
from tests.service.support.processes import HELD_CHILD, RUN_WORKER, descendants, is_alive, wait_for
from tests.service.support.stores import JOB_KINDS, stored_kinds

pytestmark = pytest.mark.long

JOB = JobSettings(trials=3, epochs=2, adapt_steps=4, resolutions=(32,), seed=3)
Files = dict[str, bytes]


@dataclass
class Site:
    """A data folder with its database, and the workers that work there."""

    settings: Settings
    database: Database
    dataset_id: str
    workers: list["subprocess.Popen[bytes]"]

    def post(self) -> str:
        request = JobRequest(
            dataset=self.dataset_id,
            memory_limit=6_000_000,
            name="shapes",
            supernet=DEFAULT_SUPERNET,
            settings=JOB,
        )
        return create_job(self.database, request)[0].id

    def start_worker(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", RUN_WORKER, self.settings.model_dump_json(), *HELD_CHILD]
        self.workers.append(subprocess.Popen(command, start_new_session=True))
        return self.workers[-1]

    def stop_workers(self) -> None:
        """In good order; whatever they had started is gone with them."""
        started = [pid for worker in self.workers for pid in descendants(worker.pid)]
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(20)
        self.workers.clear()
        wait_for(lambda: not any(map(is_alive, started)))

    def hold(self, *stages: Stage) -> None:
        """Where the job's processes to come stand still, one after another."""
        (self.settings.data_dir / "hold").write_text("\n".join(stages))

    def held(self) -> int:
        """Waits until one stands still; its process id."""
        path = self.settings.data_dir / "held"
        wait_for(path.exists, 120)
        return int(path.read_text())

    def let_go(self) -> None:
        (self.settings.data_dir / "held").unlink()

    def status(self, job_id: str) -> Status:
        return get_job(self.database, job_id).status

    def wait(self, job_id: str, status: Status = Status.SUCCEEDED) -> None:
        wait_for(lambda: self.status(job_id) in (status, Status.FAILED), 180)
        job = get_job(self.database, job_id)
        assert (job.status, job.error) == (status, None)

    def result(self, job_id: str) -> dict[str, Any]:
        """All of a result that must not depend on what happened on the way."""
        job, bundle = find_job(self.database, job_id)
        assert bundle is not None
        assert job.result is not None
        trials = list_trials(self.database, job_id)
        return {
            "sha256": bundle.sha256,
            "subnet": job.result["subnet"],
            "plan": job.result["plan"],
            "trials": [(trial.number, trial.candidate, trial.accuracy) for trial in trials],
        }

    def check_tidy(self, job_id: str) -> None:
        """Nothing but the bundle and the adapted supernet is left, and each event and epoch was
        told once."""
        job, _ = find_job(self.database, job_id)
        wait_for(lambda: self.names(job_id) == [])
        collect(open_blobs(self.settings, self.database), grace_seconds=0)
        assert stored_kinds(self.settings, self.database) == JOB_KINDS
        events = list_events(self.database, job_id)
        assert [event.number for event in events] == list(range(1, job.num_events + 1))
        epochs = Counter(
            (event.detail["training"], event.detail["epoch"])
            for event in events
            if event.kind is EventKind.EPOCH
        )
        assert epochs == {("tinytl", epoch): 1 for epoch in (0, 1)}

    def files(self, job_id: str) -> list[Path]:
        job_dir = self.settings.jobs_dir / job_id
        walk = os.walk(job_dir)  # passes over what a worker removes meanwhile
        return [Path(folder) / name for folder, _, names in walk for name in names]

    def names(self, job_id: str) -> list[str]:
        return sorted(path.name for path in self.files(job_id))

    def outcomes(self, job_id: str) -> list[str]:
        attempts = list_attempts(self.database, job_id)
        return [attempt.outcome.value for attempt in attempts if attempt.outcome is not None]


def open_site(directory: Path, files: Files) -> Site:
    data = directory / "shapes"
    for name, content in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    settings = Settings(
        data_dir=directory / "data",
        lease_seconds=2.0,
        poll_seconds=0.1,
        stop_grace_seconds=0.5,
    )
    database = Database(settings.resolved_database_url)
    database.upgrade()
    dataset, _ = import_dataset(data, settings=settings, database=database, name="shapes")
    return Site(settings, database, dataset.id, [])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a job that nothing happens to; filled by the first test that needs it."""
    return {"directory": tmp_path_factory.mktemp("undisturbed")}


@pytest.fixture
def reference(undisturbed: dict[str, Any], split_files: Files) -> dict[str, Any]:
    if "result" not in undisturbed:
        site = open_site(undisturbed["directory"], split_files)
        try:
            job_id = site.post()
            site.start_worker()
            site.wait(job_id)
            site.check_tidy(job_id)
            undisturbed["result"] = site.result(job_id)
        finally:
            site.stop_workers()
            site.database.close()
            shutil.rmtree(undisturbed["directory"])
    found: dict[str, Any] = undisturbed["result"]
    return found


@pytest.fixture
def site(tmp_path: Path, split_files: Files) -> Iterator[Site]:
    site = open_site(tmp_path, split_files)
    yield site
    for worker in site.workers:
        worker.send_signal(signal.SIGCONT)
    site.stop_workers()
    site.database.close()


def kill_worker(site: Site, child: int) -> None:
    (worker,) = site.workers
    started = descendants(worker.pid)
    assert child in started
    worker.kill()
    worker.wait()
    site.workers.clear()
    wait_for(lambda: not any(map(is_alive, started)))
    site.let_go()
    site.start_worker()


def kill_child(site: Site, child: int) -> None:
    os.kill(child, signal.SIGKILL)
    site.let_go()


def test_kills_again_and_again_change_nothing(site: Site, reference: dict[str, Any]) -> None:
    """Of the worker in each of the long stages, and of the job's process alone in the longest."""
    stages = [Stage.ADAPT, Stage.SEARCH, Stage.TRAIN, Stage.TRAIN]
    site.hold(*stages)
    job_id = site.post()
    site.start_worker()
    for number, stage in enumerate(stages):
        child = site.held()
        assert get_job(site.database, job_id).stage == stage
        if stage is stages[number - 1]:
            kill_child(site, child)
        else:
            kill_worker(site, child)
    site.wait(job_id)
    assert site.result(job_id) == reference
    assert site.outcomes(job_id) == ["lost"] * len(stages) + ["succeeded"]
    site.check_tidy(job_id)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_worker, kill_child])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_kill_in_any_stage_changes_nothing(
    site: Site, reference: dict[str, Any], stage: Stage, kill: Callable[[Site, int], None]
) -> None:
    site.hold(stage)
    job_id = site.post()
    site.start_worker()
    kill(site, site.held())
    site.wait(job_id)
    assert site.result(job_id) == reference
    assert site.outcomes(job_id) == ["lost", "succeeded"]
    site.check_tidy(job_id)


def test_a_worker_that_wakes_after_its_lease_changes_nothing(
    site: Site, reference: dict[str, Any]
) -> None:
    """Its child does not sleep: two attempts are alive at once, and the first must not write."""
    site.hold(Stage.SEARCH)
    job_id = site.post()
    first = site.start_worker()
    child = site.held()
    first.send_signal(signal.SIGSTOP)
    site.hold(Stage.TRAIN)
    site.start_worker()
    wait_for(lambda: get_job(site.database, job_id).attempt == 2, 30)
    site.let_go()  # the first attempt's child finds out by itself
    wait_for(lambda: not is_alive(child), 30)
    assert site.status(job_id) is Status.RUNNING
    first.send_signal(signal.SIGCONT)
    site.held()
    site.let_go()
    site.wait(job_id)
    assert site.result(job_id) == reference
    assert site.outcomes(job_id) == ["lost", "succeeded"]
    site.check_tidy(job_id)


def test_paused_failed_and_cancelled_it_goes_on_from_where_it_stopped(
    site: Site, reference: dict[str, Any]
) -> None:
    """Paused while it adapts, failed while it searches, cancelled while it trains."""
    site.hold(Stage.ADAPT, Stage.SEARCH, Stage.TRAIN)
    job_id = site.post()
    site.start_worker()

    child = site.held()
    pause_job(site.database, job_id)
    site.wait(job_id, Status.PAUSED)
    assert not is_alive(child)
    wait_for(lambda: site.names(job_id) == [])
    published = ["dataset", "images/images.npy", "images/labels.npy", "images/meta.json"]
    assert stored_kinds(site.settings, site.database) == published
    site.let_go()
    resume_job(site.database, job_id)

    site.held()
    scored = [trial.finished_at for trial in list_trials(site.database, job_id)]
    assert 0 < len(scored) < JOB.trials
    fail_job(site.database, Claim(job_id=job_id, attempt=2), "no luck")
    site.let_go()
    retry_job(site.database, job_id)

    child = site.held()
    cancel_job(site.database, job_id)
    site.wait(job_id, Status.CANCELLED)
    assert not is_alive(child)
    assert "adapted" in stored_kinds(site.settings, site.database)
    assert ADAPTING not in site.names(job_id)
    site.let_go()
    retry_job(site.database, job_id)

    site.wait(job_id)
    assert site.result(job_id) == reference
    assert site.outcomes(job_id) == ["paused", "failed", "cancelled", "succeeded"]
    again = [trial.finished_at for trial in list_trials(site.database, job_id)]
    assert again[: len(scored)] == scored  # they were not scored again
    site.check_tidy(job_id)
