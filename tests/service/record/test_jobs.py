import time
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import func, select, update

from service.contract.requests import JobRequest
from service.contract.status import Outcome, Status
from service.errors import ConflictError, InputError, NotFoundError
from service.record.claims import (
    Claim,
    add_trial,
    claim_job,
    fail_job,
    publish_artifact,
    release_job,
    succeed_job,
)
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Base, Dataset, IdempotencyKey, Job, Trial
from service.record.events import list_events
from service.record.jobs import (
    Found,
    Idempotency,
    Position,
    cancel_job,
    create_job,
    delete_job,
    find_job,
    find_repeated,
    get_artifact,
    get_job,
    list_attempts,
    list_jobs,
    list_trials,
    pause_job,
    requeue_job,
    resume_job,
    retry_job,
)

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeJob = Callable[..., Job]
TakeClaim = Callable[..., Claim]
Lapse = Callable[[str], None]


def idempotency(key: str, request: str = "a", owner: str = "") -> Idempotency:
    return Idempotency(owner=owner, key=key, request_sha256=request * 64)


def bring_to(database: Database, job: Job, status: Status, claim: TakeClaim) -> None:
    """Only this job may be waiting."""
    if status is Status.QUEUED:
        return
    if status is Status.PAUSED:
        pause_job(database, job.id)
        return
    held = claim()
    assert held.job_id == job.id
    if status is Status.SUCCEEDED:
        succeed_job(database, held, {})
    elif status is Status.FAILED:
        fail_job(database, held, "no luck")
    elif status is Status.CANCELLED:
        cancel_job(database, job.id)
        release_job(database, held)


def test_a_job_is_as_it_was_asked_for(database: Database, make_job: MakeJob) -> None:
    dataset_id = make_job().dataset_id
    request = JobRequest(dataset=dataset_id, memory_limit=1000, name="mine")
    job, is_new = create_job(database, request)
    assert is_new
    assert (job.name, job.memory_limit_bytes, job.status) == ("mine", 1000, Status.QUEUED)
    assert job.created_at == pytest.approx(time.time(), abs=3)
    found, bundle = find_job(database, job.id)
    assert bundle is None
    for column in Job.__table__.columns:
        assert getattr(found, column.name) == getattr(job, column.name), column.name
    unnamed, _ = create_job(database, JobRequest(dataset=dataset_id, memory_limit=1000))
    assert unnamed.name == f"job {unnamed.id[:8]}"


def test_what_is_not_there(database: Database) -> None:
    look: list[Callable[[Database, str], object]] = [
        *(find_job, get_job, list_trials, list_attempts, delete_job, requeue_job),
        *(cancel_job, pause_job, resume_job, retry_job),
    ]
    for function in look:
        with pytest.raises(NotFoundError, match="no job 'abc'"):
            function(database, "abc")
    assert get_artifact(database, "abc", "bundle") is None
    assert list_jobs(database) == []


ACTIONS = {"cancel": cancel_job, "pause": pause_job, "resume": resume_job, "retry": retry_job}


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        (Status.QUEUED, {"cancel": "cancelled", "pause": "paused", "resume": "queued"}),
        (Status.RUNNING, {"cancel": "running", "pause": "running", "resume": "running"}),
        (Status.PAUSED, {"cancel": "cancelled", "pause": "paused", "resume": "queued"}),
        (Status.SUCCEEDED, {}),
        (Status.FAILED, {"retry": "queued"}),
        (Status.CANCELLED, {"cancel": "cancelled", "retry": "queued"}),
    ],
)
def test_what_can_be_done_with_a_job(
    database: Database,
    make_job: MakeJob,
    claim: TakeClaim,
    status: Status,
    allowed: dict[str, str],
) -> None:
    for name, act in ACTIONS.items():
        job = make_job()
        bring_to(database, job, status, claim)
        if name in allowed:
            assert act(database, job.id).status == allowed[name], name
        else:
            with pytest.raises(ConflictError, match=job.id):
                act(database, job.id)
            assert get_job(database, job.id).status is status
        with database.writing() as session:  # out of the next one's way
            session.execute(update(Job).where(Job.id == job.id).values(status=Status.SUCCEEDED))


def test_a_running_job_is_asked_to_stop(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    claim()
    assert pause_job(database, job.id).stop_request == "pause"
    pause_job(database, job.id)
    assert resume_job(database, job.id).stop_request is None
    assert cancel_job(database, job.id).stop_request == "cancel"
    cancel_job(database, job.id)
    for act in (pause_job, resume_job):
        with pytest.raises(ConflictError, match="being cancelled"):
            act(database, job.id)
    requests = [e.detail for e in list_events(database, job.id) if e.kind.value == "request"]
    assert requests == [{"request": "pause"}, {"request": None}, {"request": "cancel"}]


def test_a_job_whose_worker_is_gone_stops_at_once(
    database: Database, make_job: MakeJob, claim: TakeClaim, lapse: Lapse
) -> None:
    for act, status in ((cancel_job, Status.CANCELLED), (pause_job, Status.PAUSED)):
        job = make_job()
        claim()
        lapse(job.id)
        assert act(database, job.id).status is status
        assert [a.outcome for a in list_attempts(database, job.id)] == [Outcome.LOST]


def test_a_retried_job_keeps_what_is_finished(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    held = claim()
    add_finished(database, held)
    fail_job(database, held, "no luck")
    queued = retry_job(database, job.id)
    assert (queued.error, queued.finished_at, queued.lost_attempts) == (None, None, 0)
    assert claim() == Claim(job_id=job.id, attempt=2)
    assert [row.number for row in list_trials(database, job.id)] == [0]
    assert get_artifact(database, job.id, "bundle") is not None


def add_finished(database: Database, held: Claim) -> None:
    add_trial(
        database,
        held,
        Trial(
            job_id=held.job_id,
            number=0,
            candidate={"resolution": 64},
            predicted_peak_bytes=5_000_000,
            lean_peak_bytes=5_000_000,
            accuracy=0.5,
            seconds=0.5,
            attempt=held.attempt,
            finished_at=now(),
        ),
    )
    publish_artifact(
        database,
        held,
        Artifact(
            job_id=held.job_id,
            kind="bundle",
            path="1/model.zip",
            num_bytes=10,
            sha256="ab",
            detail={},
            attempt=held.attempt,
            created_at=now(),
        ),
    )


def test_a_deleted_job_leaves_nothing(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    dataset_id = make_job().dataset_id
    kept = claim()
    release_job(database, kept)
    cancel_job(database, kept.job_id)
    request = JobRequest(dataset=dataset_id, memory_limit=1000)
    job, _ = create_job(database, request, idempotency("k"))
    held = claim()
    add_finished(database, held)
    with pytest.raises(ConflictError, match="is running; cancel it first"):
        delete_job(database, job.id)
    succeed_job(database, held, {})
    delete_job(database, job.id)
    with database.reading() as session:
        for table in Base.metadata.sorted_tables:
            if "job_id" in table.c:
                ids = set(session.scalars(select(table.c.job_id)))
                assert ids <= {kept.job_id}, table.name
        assert session.scalars(select(Job.id)).all() == [kept.job_id]
        assert session.scalars(select(func.count()).select_from(Dataset)).one() == 1
    _, is_new = create_job(database, request, idempotency("k"))
    assert is_new


def test_an_idempotency_key_makes_one_job(database: Database, make_job: MakeJob) -> None:
    request = JobRequest(dataset=make_job().dataset_id, memory_limit=1000)
    assert find_repeated(database, idempotency("k")) is None
    first, is_new = create_job(database, request, idempotency("k"))
    assert is_new
    again, is_new = create_job(database, request, idempotency("k"))
    assert (again.id, is_new) == (first.id, False)
    repeated = find_repeated(database, idempotency("k"))
    assert repeated is not None
    assert repeated.id == first.id
    for send in (create_job, lambda d, r, i: find_repeated(d, i)):
        with pytest.raises(InputError, match="'k' came with another request before"):
            send(database, request, idempotency("k", request="b"))
    other, _ = create_job(database, request, idempotency("k", owner="somebody"))
    assert other.id != first.id


def test_an_idempotency_key_holds_for_a_day(database: Database, make_job: MakeJob) -> None:
    request = JobRequest(dataset=make_job().dataset_id, memory_limit=1000)
    first, _ = create_job(database, request, idempotency("k"))
    age_of_keys(database, hours=23)
    assert find_repeated(database, idempotency("k")) is not None
    age_of_keys(database, hours=25)
    assert find_repeated(database, idempotency("k")) is None
    second, is_new = create_job(database, request, idempotency("k", request="b"))
    assert is_new
    assert second.id != first.id


def age_of_keys(database: Database, *, hours: float) -> None:
    with database.writing() as session:
        session.execute(update(IdempotencyKey).values(created_at=now() - hours * 3600))


def pages(database: Database, limit: int, **filters: object) -> list[str]:
    """The ids of all pages, one after the other."""
    ids: list[str] = []
    after = None
    while len(ids) <= 100:  # more than there are: a page came twice
        page: Sequence[Found] = list_jobs(database, limit=limit, after=after, **filters)  # type: ignore[arg-type]
        ids += [job.id for job, _ in page]
        if len(page) < limit:
            return ids
        last = page[-1][0]
        after = Position(created_at=last.created_at, job_id=last.id)
    return ids


def test_pages_give_each_job_once_newest_first(database: Database, make_job: MakeJob) -> None:
    jobs = [make_job(dataset=f"d{number % 2}") for number in range(14)]
    with database.writing() as session:
        for number, job in enumerate(jobs):  # three each share a moment
            moment = update(Job).where(Job.id == job.id)
            session.execute(moment.values(created_at=1000.1 + number // 3))
    for job in jobs[:5]:
        pause_job(database, job.id)
    expected = [job.id for _, job in sorted(enumerate(jobs), key=lambda n: (n[0] // 3, n[1].id))][
        ::-1
    ]
    by_id = {job.id: (number, job) for number, job in enumerate(jobs)}
    for limit in (1, 3, 4, 14, 100):
        assert pages(database, limit) == expected
        for status in (Status.PAUSED, Status.QUEUED, Status.FAILED):
            wanted = [
                job_id
                for job_id in expected
                if (Status.PAUSED if by_id[job_id][0] < 5 else Status.QUEUED) is status
            ]
            assert pages(database, limit, status=status) == wanted
            in_d1 = [job_id for job_id in wanted if by_id[job_id][1].dataset_id == "d1"]
            assert pages(database, limit, status=status, dataset_id="d1") == in_d1
        in_d0 = [job_id for job_id in expected if by_id[job_id][1].dataset_id == "d0"]
        assert pages(database, limit, dataset_id="d0") == in_d0


def test_a_page_stays_where_it_is_while_jobs_come(database: Database, make_job: MakeJob) -> None:
    old = make_job()
    time.sleep(0.002)  # SQLite's clock counts milliseconds
    new = make_job()
    ((first, _),) = list_jobs(database, limit=1)
    assert first.id == new.id
    make_job()
    after = Position(created_at=first.created_at, job_id=first.id)
    assert [job.id for job, _ in list_jobs(database, after=after)] == [old.id]


def test_bundles_come_with_their_jobs(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job, other = make_job(), make_job()
    pause_job(database, other.id)
    held = claim()
    add_finished(database, held)
    bundles = {found.id: bundle for found, bundle in list_jobs(database)}
    assert bundles[other.id] is None
    assert bundles[job.id] is not None
    found = find_job(database, job.id)[1]
    assert found is not None
    assert found.path == "1/model.zip"
    assert claim_job(database, worker="w", lease_seconds=30, max_lost_attempts=2) is None
