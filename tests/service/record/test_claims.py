import time
from collections.abc import Callable

import pytest

from service.contract.status import Outcome, Status, StopRequest
from service.errors import LeaseLostError
from service.record.claims import (
    Claim,
    add_epoch,
    add_log,
    add_trial,
    claim_job,
    fail_job,
    lose_job,
    publish_adapted,
    publish_artifact,
    release_job,
    renew_lease,
    set_progress,
    stop_request,
    succeed_job,
)
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Job, Trial
from service.record.events import list_events
from service.record.jobs import (
    cancel_job,
    get_artifact,
    get_job,
    list_attempts,
    list_trials,
    pause_job,
    requeue_job,
    resume_job,
)

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeJob = Callable[..., Job]
TakeClaim = Callable[..., Claim]
Lapse = Callable[[str], None]


def try_claim(database: Database) -> Claim | None:
    return claim_job(database, worker="here:2", lease_seconds=30, max_lost_attempts=2)


def outcomes(database: Database, job_id: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in list_attempts(database, job_id)]


def trial(job_id: str, number: int, accuracy: float = 0.5) -> Trial:
    return Trial(
        job_id=job_id,
        number=number,
        candidate={"resolution": 64},
        predicted_peak_bytes=5_000_000,
        lean_peak_bytes=5_000_000,
        accuracy=accuracy,
        seconds=0.5,
        attempt=1,
        finished_at=now(),
    )


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


def test_the_oldest_job_is_claimed_once(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    first = make_job()
    time.sleep(0.002)  # SQLite's clock counts milliseconds
    second = make_job()
    assert claim() == Claim(job_id=first.id, attempt=1)
    assert claim(worker="there:7") == Claim(job_id=second.id, attempt=1)
    assert try_claim(database) is None
    job = get_job(database, second.id)
    assert job.status is Status.RUNNING
    assert job.started_at == pytest.approx(time.time(), abs=3)
    assert job.lease_expires_at == pytest.approx(time.time() + 30, abs=3)
    (attempt,) = list_attempts(database, second.id)
    assert (attempt.number, attempt.worker, attempt.outcome) == (1, "there:7", None)


WRITES: dict[str, Callable[[Database, Claim], object]] = {
    "renew_lease": lambda database, late: renew_lease(database, late, lease_seconds=30),
    "stop_request": stop_request,
    "set_progress": lambda database, late: set_progress(
        database, late, stage="train", progress=0.9, seconds_left=1.0
    ),
    "add_trial": lambda database, late: add_trial(database, late, trial(late.job_id, 0)),
    "publish_artifact": lambda database, late: publish_artifact(
        database, late, artifact(late.job_id)
    ),
    "publish_adapted": lambda database, late: publish_adapted(
        database, late, artifact(late.job_id), [trial(late.job_id, 0)]
    ),
    "add_epoch": lambda database, late: add_epoch(database, late, epoch=1),
    "add_log": lambda database, late: add_log(database, late, "late"),
    "succeed_job": lambda database, late: succeed_job(database, late, {}),
    "fail_job": lambda database, late: fail_job(database, late, "late"),
    "release_job": release_job,
    "lose_job": lambda database, late: lose_job(database, late, max_lost_attempts=2),
}


def everything(database: Database, job_id: str) -> tuple[object, ...]:
    job = get_job(database, job_id)
    columns = {column.name: getattr(job, column.name) for column in Job.__table__.columns}
    return (
        columns,
        [event.number for event in list_events(database, job_id)],
        outcomes(database, job_id),
        [row.number for row in list_trials(database, job_id)],
        get_artifact(database, job_id, "bundle") is None,
    )


@pytest.mark.parametrize("since", ["claimed by another", "queued", "cancelled"])
def test_a_late_worker_changes_nothing(
    database: Database,
    make_job: MakeJob,
    claim: TakeClaim,
    lapse: Lapse,
    since: str,
) -> None:
    job = make_job()
    late = claim()
    set_progress(database, late, stage="search", progress=0.4, seconds_left=None)
    lapse(job.id)
    if since == "claimed by another":
        assert claim() == Claim(job_id=job.id, attempt=2)
    elif since == "queued":
        requeue_job(database, job.id)
    else:
        cancel_job(database, job.id)
    before = everything(database, job.id)
    for name, write in WRITES.items():
        with pytest.raises(LeaseLostError, match="attempt 1 no longer owns"):
            write(database, late)
        assert everything(database, job.id) == before, name


def test_an_expired_lease_goes_to_the_next(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    claim(lease_seconds=0.05)
    make_job()
    time.sleep(0.1)
    assert claim() == Claim(job_id=job.id, attempt=2)
    found = get_job(database, job.id)
    assert (found.status, found.lost_attempts) == (Status.RUNNING, 1)
    assert outcomes(database, job.id) == [Outcome.LOST, None]


def test_renewing_keeps_the_job(database: Database, make_job: MakeJob, claim: TakeClaim) -> None:
    make_job()
    held = claim(lease_seconds=0.4)
    for _ in range(3):
        time.sleep(0.2)
        renew_lease(database, held, lease_seconds=0.4)
        assert try_claim(database) is None
    time.sleep(0.5)
    assert try_claim(database) is not None


def test_trials_and_artifacts_are_written_once_each(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    held = claim()
    for number in (1, 0, 1):
        add_trial(database, held, trial(job.id, number, accuracy=0.75))
    assert [(row.number, row.accuracy) for row in list_trials(database, job.id)] == [
        (0, 0.75),
        (1, 0.75),
    ]
    assert [row.number for row in list_trials(database, job.id, after=0, limit=1)] == [1]
    told = [event for event in list_events(database, job.id) if event.kind.value == "trial"]
    assert [event.detail["number"] for event in told] == [1, 0]
    publish_artifact(database, held, artifact(job.id))
    publish_artifact(database, held, artifact(job.id, sha256="cd"))
    found = get_artifact(database, job.id, "bundle")
    assert found is not None
    assert found.sha256 == "cd"


def test_trials_belong_to_the_supernet_that_they_were_scored_with(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    held = claim()

    def publish(sha256: str, *numbers: int) -> list[int]:
        trials = [trial(job.id, number) for number in numbers]
        publish_adapted(database, held, artifact(job.id, sha256=sha256), trials)
        return [row.number for row in list_trials(database, job.id)]

    assert publish("ab", 0, 1) == [0, 1]
    add_trial(database, held, trial(job.id, 2))
    assert publish("ab") == [0, 1, 2]  # adapted once more, as its file was gone
    assert publish("ab", 0) == [0, 1, 2]
    assert publish("cd", 0) == [0]
    assert publish("ef") == []
    numbers = [event.number for event in list_events(database, job.id)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_progress_never_goes_back(database: Database, make_job: MakeJob, claim: TakeClaim) -> None:
    job = make_job()
    held = claim()
    set_progress(database, held, stage="train", progress=0.5, seconds_left=60.0)
    set_progress(database, held, stage="train", progress=0.2, seconds_left=30.0)
    found = get_job(database, job.id)
    assert found.progress == 0.5
    assert found.estimated_finish_at == pytest.approx(time.time() + 30, abs=3)
    succeed_job(database, held, {"resolution": 64})
    done = get_job(database, job.id)
    assert (done.status, done.progress, done.result) == (
        Status.SUCCEEDED,
        1.0,
        {"resolution": 64},
    )
    assert done.finished_at == pytest.approx(time.time(), abs=3)
    assert (done.lease_expires_at, done.estimated_finish_at) == (None, None)
    assert outcomes(database, job.id) == [Outcome.SUCCEEDED]


def test_a_failed_job_says_why(database: Database, make_job: MakeJob, claim: TakeClaim) -> None:
    job = make_job()
    fail_job(database, claim(), "no such supernet")
    failed = get_job(database, job.id)
    assert (failed.status, failed.error) == (Status.FAILED, "no such supernet")
    assert outcomes(database, job.id) == [Outcome.FAILED]
    assert list_events(database, job.id)[-1].detail == {
        "status": "failed",
        "error": "no such supernet",
    }


@pytest.mark.parametrize(
    ("wish", "status", "outcome"),
    [
        (cancel_job, Status.CANCELLED, Outcome.CANCELLED),
        (pause_job, Status.PAUSED, Outcome.PAUSED),
        (None, Status.QUEUED, Outcome.RELEASED),
    ],
)
@pytest.mark.parametrize("end", ["release", "lose", "lapse"])
def test_a_wish_to_stop_outlives_its_worker(
    database: Database,
    make_job: MakeJob,
    claim: TakeClaim,
    lapse: Lapse,
    wish: Callable[[Database, str], Job] | None,
    status: Status,
    outcome: Outcome,
    end: str,
) -> None:
    job = make_job()
    held = claim()
    if wish is not None:
        wish(database, job.id)
    if end == "release":
        release_job(database, held)
    elif end == "lose":
        lose_job(database, held, max_lost_attempts=2)
    else:
        lapse(job.id)
        next_claim = try_claim(database)
        assert (next_claim is None) == (wish is not None)
        status = Status.RUNNING if wish is None else status
    found = get_job(database, job.id)
    assert (found.status, found.stop_request) == (status, None)
    assert (found.lease_expires_at is None) == (status is not Status.RUNNING)
    is_lost = end in ("lose", "lapse")
    assert outcomes(database, job.id)[0] is (Outcome.LOST if is_lost else outcome)
    assert found.lost_attempts == (1 if is_lost else 0)


def test_a_worker_learns_what_its_owner_wants(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    held = claim()
    assert stop_request(database, held) is None
    pause_job(database, job.id)
    assert stop_request(database, held) is StopRequest.PAUSE
    resume_job(database, job.id)
    assert stop_request(database, held) is None
    pause_job(database, job.id)
    cancel_job(database, job.id)
    assert stop_request(database, held) is StopRequest.CANCEL


def test_a_requeued_job_is_forgiven_its_lost_workers(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    for attempt in range(1, 6):
        assert claim() == Claim(job_id=job.id, attempt=attempt)
        requeue_job(database, job.id)
    assert get_job(database, job.id).lost_attempts == 0
    assert outcomes(database, job.id) == [Outcome.RELEASED] * 5


def test_a_job_that_kills_its_workers_fails(
    database: Database, make_job: MakeJob, claim: TakeClaim, lapse: Lapse
) -> None:
    killer, next_job = make_job(), make_job()
    with database.writing() as session:
        job = session.get(Job, next_job.id)
        assert job is not None
        job.created_at = now() + 60.0
    lose_job(database, claim(), max_lost_attempts=2)
    claim()
    lapse(killer.id)
    claim()
    lapse(killer.id)
    assert claim().job_id == next_job.id
    found = get_job(database, killer.id)
    assert found.status is Status.FAILED
    assert "died more than 2 times" in (found.error or "")
    assert outcomes(database, killer.id) == [Outcome.LOST] * 3


def test_what_gets_something_done_may_lose_workers_for_ever(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    finished: list[Callable[[Claim], object]] = [
        lambda held: add_trial(database, held, trial(job.id, held.attempt)),
        lambda held: publish_artifact(database, held, artifact(job.id)),
        lambda held: add_epoch(database, held, epoch=held.attempt),
    ]
    for finish in finished * 3:
        held = claim()
        finish(held)
        lose_job(database, held, max_lost_attempts=1)
        assert get_job(database, job.id).lost_attempts == 1
