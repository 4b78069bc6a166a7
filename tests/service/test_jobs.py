import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.database import Database, now
from service.errors import ConflictError, LeaseLostError, NotFoundError
from service.jobs import (
    Claim,
    add_trial,
    cancel_job,
    claim_job,
    create_job,
    fail_job,
    get_artifact,
    get_job,
    list_jobs,
    list_trials,
    publish_artifact,
    release_job,
    renew_lease,
    request_cancel,
    requeue_job,
    set_progress,
    succeed_job,
)
from service.models import Artifact, Job, Status, Trial
from service.schemas import JobRequest

MakeJob = Callable[..., Job]


def claim(database: Database, lease_seconds: float = 30.0) -> Claim:
    found = claim_job(database, lease_seconds=lease_seconds, max_lost_attempts=2)
    assert found is not None
    return found


def lapse(database: Database, job_id: str) -> None:
    """As if the lease had run out."""
    with database.writing() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.lease_expires_at = 0.0


def trial(job_id: str, number: int, accuracy: float = 0.5) -> Trial:
    return Trial(
        job_id=job_id,
        number=number,
        candidate={"resolution": 64},
        predicted_peak_bytes=5_000_000,
        accuracy=accuracy,
        seconds=0.5,
        attempt=1,
        finished_at=now(),
    )


def test_the_oldest_job_is_claimed_once(database: Database, make_job: MakeJob) -> None:
    first, second = make_job(), make_job()
    assert claim(database) == Claim(job_id=first.id, attempt=1)
    assert claim(database) == Claim(job_id=second.id, attempt=1)
    assert claim_job(database, lease_seconds=30, max_lost_attempts=2) is None
    job = get_job(database, first.id)
    assert job.status is Status.RUNNING
    assert job.started_at == pytest.approx(time.time(), abs=3)


def test_many_workers_never_share_a_job(database: Database, make_job: MakeJob) -> None:
    jobs = {make_job().id for _ in range(12)}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: claim(database).job_id, range(12)))
    assert sorted(found) == sorted(jobs)


def test_an_expired_lease_goes_to_the_next_and_the_late_worker_changes_nothing(
    database: Database, make_job: MakeJob
) -> None:
    job = make_job()
    late = claim(database, lease_seconds=0.05)
    set_progress(database, late, stage="search", progress=0.4)
    time.sleep(0.1)
    current = claim(database)
    assert current == Claim(job_id=job.id, attempt=2)
    writes: list[Callable[[], object]] = [
        lambda: renew_lease(database, late, lease_seconds=30),
        lambda: set_progress(database, late, stage="train", progress=0.9),
        lambda: add_trial(database, late, trial(job.id, 0)),
        lambda: publish_artifact(database, late, artifact(job.id)),
        lambda: succeed_job(database, late, {}),
        lambda: fail_job(database, late, "late"),
        lambda: cancel_job(database, late),
        lambda: release_job(database, late),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError, match="attempt 1 no longer owns"):
            write()
    found = get_job(database, job.id)
    assert (found.status, found.stage, found.progress) == (Status.RUNNING, "search", 0.4)
    assert found.lost_attempts == 1
    assert list_trials(database, job.id) == []
    assert get_artifact(database, job.id, "bundle") is None


def artifact(job_id: str, sha256: str = "ab") -> Artifact:
    return Artifact(
        job_id=job_id,
        kind="bundle",
        path="1/model.zip",
        num_bytes=10,
        sha256=sha256,
        detail={},
        attempt=1,
        created_at=now(),
    )


def test_renewing_keeps_the_job(database: Database, make_job: MakeJob) -> None:
    make_job()
    held = claim(database, lease_seconds=0.2)
    for _ in range(4):
        time.sleep(0.1)
        assert renew_lease(database, held, lease_seconds=0.2) is False
        assert claim_job(database, lease_seconds=1, max_lost_attempts=2) is None


def test_trials_and_artifacts_are_written_once_each(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    held = claim(database)
    for number in (1, 0):
        add_trial(database, held, trial(job.id, number))
    add_trial(database, held, trial(job.id, 1, accuracy=0.75))
    assert [(row.number, row.accuracy) for row in list_trials(database, job.id)] == [
        (0, 0.5),
        (1, 0.75),
    ]
    publish_artifact(database, held, artifact(job.id))
    publish_artifact(database, held, artifact(job.id, sha256="cd"))
    found = get_artifact(database, job.id, "bundle")
    assert found is not None
    assert found.sha256 == "cd"


def test_progress_never_goes_back(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    held = claim(database)
    set_progress(database, held, stage="train", progress=0.5)
    set_progress(database, held, stage="train", progress=0.2)
    assert get_job(database, job.id).progress == 0.5
    succeed_job(database, held, {"resolution": 64})
    done = get_job(database, job.id)
    assert (done.progress, done.result) == (1.0, {"resolution": 64})
    assert done.finished_at is not None
    assert done.lease_expires_at is None


def test_cancelling(database: Database, make_job: MakeJob) -> None:
    waiting = make_job()
    assert request_cancel(database, waiting.id).status is Status.CANCELLED
    assert request_cancel(database, waiting.id).status is Status.CANCELLED

    running = make_job()
    held = claim(database)
    assert request_cancel(database, running.id).status is Status.RUNNING
    assert renew_lease(database, held, lease_seconds=30) is True
    cancel_job(database, held)
    assert get_job(database, running.id).status is Status.CANCELLED

    orphan = make_job()
    claim(database)
    lapse(database, orphan.id)
    assert request_cancel(database, orphan.id).status is Status.CANCELLED

    done = make_job()
    succeed_job(database, claim(database), {})
    with pytest.raises(ConflictError, match="already succeeded"):
        request_cancel(database, done.id)


def test_a_wish_to_cancel_outlives_the_worker(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    claim(database)
    request_cancel(database, job.id)
    lapse(database, job.id)
    assert claim(database).cancel_requested


def test_a_released_job_is_claimed_again_at_once(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    release_job(database, claim(database))
    assert claim(database) == Claim(job_id=job.id, attempt=2)
    assert get_job(database, job.id).lost_attempts == 0


def test_a_requeued_job_is_forgiven_its_lost_workers(
    database: Database, make_job: MakeJob
) -> None:
    job = make_job()
    requeue_job(database, job.id)
    for attempt in range(1, 10):
        assert claim(database) == Claim(job_id=job.id, attempt=attempt)
        requeue_job(database, job.id)
    assert get_job(database, job.id).lost_attempts == 0


def test_a_job_that_kills_its_workers_fails(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    release_job(database, claim(database), lost=True)
    claim(database)
    lapse(database, job.id)
    held = claim(database)
    release_job(database, held, lost=True)
    assert claim_job(database, lease_seconds=1, max_lost_attempts=2) is None
    found = get_job(database, job.id)
    assert found.status is Status.FAILED
    assert "died more than 2 times" in (found.error or "")


def test_listing_and_missing(database: Database, make_job: MakeJob) -> None:
    first, second = make_job(), make_job()
    assert [job.id for job in list_jobs(database)] == [second.id, first.id]
    for look in (get_job, list_trials, request_cancel):
        with pytest.raises(NotFoundError, match="no job 'abc'"):
            look(database, "abc")


def test_a_job_without_a_name_gets_one(database: Database, make_job: MakeJob) -> None:
    job = make_job()
    request = JobRequest(dataset=job.dataset_id, memory_limit=1000)
    assert create_job(database, request).name.startswith("job ")
