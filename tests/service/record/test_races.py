"""What many threads and processes do to one record at once."""

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from service.contract.requests import JobRequest
from service.contract.status import Outcome, Status
from service.datasets.store import import_dataset
from service.errors import ConflictError, LeaseLostError, NotFoundError
from service.record.claims import (
    Claim,
    add_log,
    claim_job,
    release_job,
    set_progress,
    stop_request,
    succeed_job,
)
from service.record.db.database import Database
from service.record.db.models import Dataset, Event, Job
from service.record.events import list_events
from service.record.jobs import (
    Idempotency,
    cancel_job,
    create_job,
    delete_job,
    find_job,
    list_attempts,
    list_jobs,
    pause_job,
    resume_job,
)
from service.settings import Settings

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

Files = dict[str, bytes]
MakeZip = Callable[[Files], Path]
MakeJob = Callable[..., Job]
TakeClaim = Callable[..., Claim]

CLAIM_ALL = """
import sys
from service.record.claims import claim_job
from service.record.db.database import Database
database = Database(sys.argv[1])
sys.stdin.readline()
while claim := claim_job(database, worker=sys.argv[2], lease_seconds=30, max_lost_attempts=2):
    print(claim.job_id)
"""


def at_once(*actions: Callable[[], object]) -> list[object]:
    """What each returns, or its conflict, where all begin at the same moment."""
    barrier = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> object:
        barrier.wait(10)
        try:
            return action()
        except (ConflictError, LeaseLostError, NotFoundError) as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def try_claim(database: Database) -> Claim | None:
    return claim_job(database, worker="here:1", lease_seconds=30, max_lost_attempts=2)


def check_story(database: Database, job_id: str) -> None:
    """Events are numbered without a gap, and the last status told is the job's."""
    job, _ = find_job(database, job_id)
    events = list_events(database, job_id)
    assert [event.number for event in events] == list(range(1, job.num_events + 1))
    told = [event.detail["status"] for event in events if event.kind.value == "status"]
    assert told[-1] == job.status.value
    open_attempts = [a.number for a in list_attempts(database, job_id) if a.outcome is None]
    assert open_attempts == ([job.attempt] if job.status is Status.RUNNING else [])


def test_threads_never_share_a_job(database: Database, make_job: MakeJob) -> None:
    jobs = {make_job().id for _ in range(24)}

    def claim_all() -> list[str]:
        found = []
        while claim := try_claim(database):
            found.append(claim.job_id)
        return found

    found = [job_id for ids in at_once(*[claim_all] * 8) for job_id in ids]  # type: ignore[attr-defined]
    assert Counter(found) == Counter(jobs)


def test_processes_never_share_a_job(
    database: Database, settings: Settings, make_job: MakeJob
) -> None:
    jobs = {make_job().id for _ in range(24)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, settings.resolved_database_url, f"w{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [job_id for process in processes for job_id in process.communicate()[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert Counter(found) == Counter(jobs)


def test_jobs_whose_workers_died_are_handed_on_once(
    database: Database, make_job: MakeJob, claim: TakeClaim, lapse: Callable[[str], None]
) -> None:
    jobs = [make_job().id for _ in range(6)]
    for held in [claim() for _ in jobs]:
        lapse(held.job_id)
    found = at_once(*[lambda: try_claim(database)] * 12)
    claims = [held for held in found if isinstance(held, Claim)]
    assert Counter(held.job_id for held in claims) == Counter(jobs)
    assert {held.attempt for held in claims} == {2}
    for job_id in jobs:
        check_story(database, job_id)


def test_one_request_sent_by_many_makes_one_job(database: Database, make_job: MakeJob) -> None:
    request = JobRequest(dataset=make_job().dataset_id, memory_limit=1000)
    for number in range(5):
        key = Idempotency(owner="", key=f"k{number}", request_sha256="a" * 64)
        answers = at_once(*[lambda key=key: create_job(database, request, key)] * 8)
        made: list[tuple[Job, bool]] = answers  # type: ignore[assignment]
        assert len({job.id for job, _ in made}) == 1
        assert sum(is_new for _, is_new in made) == 1
    assert len(list_jobs(database)) == 1 + 5


def test_the_same_images_uploaded_by_many_are_one_dataset(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    archive = make_zip(flat_files)
    answers = at_once(*[lambda: import_dataset(archive, settings=settings, database=database)] * 6)
    stored: list[tuple[Dataset, bool]] = answers  # type: ignore[assignment]
    assert len({dataset.id for dataset, _ in stored}) == 1
    assert sum(is_new for _, is_new in stored) == 1
    assert not list(settings.incoming_dir.iterdir())


def test_events_have_no_gap_and_show_in_order(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    """A reader that goes on after the last number it saw misses none."""
    job = make_job()
    held = claim()
    done = threading.Event()
    seen: list[int] = []

    def write(writer: int) -> None:
        for number in range(12):
            add_log(database, held, f"{writer} {number}")

    def follow() -> None:
        while True:
            was_done = done.is_set()
            new = [e.number for e in list_events(database, job.id, after=seen[-1] if seen else 0)]
            seen.extend(new)
            if was_done and not new:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        at_once(*[lambda writer=writer: write(writer) for writer in range(6)])
    finally:
        done.set()
        reader.join(30)
    assert seen == list(range(1, 2 + 6 * 12 + 1))
    check_story(database, job.id)


@pytest.mark.parametrize("wish", [cancel_job, pause_job, delete_job])
def test_a_wish_against_a_claim(
    database: Database, make_job: MakeJob, wish: Callable[[Database, str], object]
) -> None:
    """Either is first; never is a job worked on that has stopped or is gone."""
    for _ in range(8):
        job = make_job()
        found, wished = at_once(
            lambda: try_claim(database), lambda job_id=job.id: wish(database, job_id)
        )
        if found is None and wish is delete_job:
            assert list_jobs(database, status=Status.QUEUED) == []
            with pytest.raises(NotFoundError):
                find_job(database, job.id)
            continue
        now, _ = find_job(database, job.id)
        if found is None:
            assert now.status in (Status.CANCELLED, Status.PAUSED)
        else:
            assert isinstance(found, Claim)
            assert now.status is Status.RUNNING
            if wish is delete_job:
                assert isinstance(wished, ConflictError)
                succeed_job(database, found, {})
            else:
                assert stop_request(database, found) is not None
                release_job(database, found)
                assert find_job(database, job.id)[0].status in (Status.CANCELLED, Status.PAUSED)
        check_story(database, job.id)


def test_pausing_and_resuming_against_its_worker(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    for _ in range(8):
        job = make_job()
        held = claim()
        pause_job(database, job.id)
        at_once(
            lambda held=held: release_job(database, held),
            lambda job_id=job.id: resume_job(database, job_id),
        )
        assert find_job(database, job.id)[0].status is Status.QUEUED
        check_story(database, job.id)
        cancel_job(database, job.id)


def test_an_end_against_a_wish(database: Database, make_job: MakeJob, claim: TakeClaim) -> None:
    for _ in range(8):
        job = make_job()
        held = claim()
        at_once(
            lambda held=held: succeed_job(database, held, {"resolution": 64}),
            lambda job_id=job.id: cancel_job(database, job_id),
        )
        found, _ = find_job(database, job.id)
        assert (found.status, found.stop_request) == (Status.SUCCEEDED, None)
        assert [a.outcome for a in list_attempts(database, job.id)] == [Outcome.SUCCEEDED]
        check_story(database, job.id)


def test_everybody_at_once_and_nobody_waits_for_ever(
    database: Database, make_job: MakeJob
) -> None:
    """Workers and owners at random: no deadlock, no error but conflicts, true stories."""
    jobs: Sequence[str] = [make_job().id for _ in range(6)]

    def work(seed: int) -> int:
        rng = random.Random(seed)
        done = 0
        for _ in range(15):
            held = claim_job(
                database,
                worker=f"w{seed}",
                lease_seconds=rng.choice((0.0, 30.0)),
                max_lost_attempts=1000,
            )
            if held is None:
                continue
            with suppress(LeaseLostError):
                set_progress(database, held, stage=str(seed), progress=0.5, seconds_left=None)
                add_log(database, held, "working")
                release_job(database, held)
                done += 1
        return done

    def own(seed: int) -> int:
        rng = random.Random(seed)
        for _ in range(15):
            wish = rng.choice((pause_job, resume_job, resume_job))
            with suppress(ConflictError):
                wish(database, rng.choice(jobs))
        return 0

    owners = [lambda seed=seed: own(seed) for seed in range(3)]
    workers = [lambda seed=seed: work(seed) for seed in range(10, 14)]
    at_once(*owners, *workers)
    for job_id in jobs:
        check_story(database, job_id)
    with database.reading() as session:
        assert len(session.scalars(select(Event)).all()) > len(jobs)
