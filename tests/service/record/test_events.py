import time
from collections.abc import Callable

import pytest

from service.contract.status import EventKind
from service.record.claims import Claim, add_epoch, add_log, fail_job, set_progress
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.events import append_event, list_events
from service.record.jobs import cancel_job, find_job, get_job, retry_job

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeJob = Callable[..., Job]
TakeClaim = Callable[..., Claim]


def test_a_job_tells_its_story(database: Database, make_job: MakeJob, claim: TakeClaim) -> None:
    job = make_job()
    held = claim(worker="here:1")
    set_progress(database, held, stage="train", progress=0.1, seconds_left=None)
    set_progress(database, held, stage="train", progress=0.2, seconds_left=None)
    add_epoch(database, held, training="tinytl", epoch=1, train_loss=0.5)
    add_log(database, held, "3 images left out")
    cancel_job(database, job.id)
    fail_job(database, held, "no luck")
    retry_job(database, job.id)
    events = list_events(database, job.id)
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [(event.kind, event.detail, event.attempt) for event in events] == [
        (EventKind.STATUS, {"status": "queued"}, 0),
        (EventKind.STATUS, {"status": "running", "worker": "here:1"}, 1),
        (EventKind.STAGE, {"stage": "train"}, 1),
        (EventKind.EPOCH, {"training": "tinytl", "epoch": 1, "train_loss": 0.5}, 1),
        (EventKind.LOG, {"message": "3 images left out"}, 1),
        (EventKind.REQUEST, {"request": "cancel"}, 1),
        (EventKind.STATUS, {"status": "failed", "error": "no luck"}, 1),
        (EventKind.STATUS, {"status": "queued"}, 1),
    ]
    assert all(event.created_at == pytest.approx(time.time(), abs=5) for event in events)
    assert find_job(database, job.id)[0].num_events == 8


def test_events_are_read_from_anywhere(
    database: Database, make_job: MakeJob, claim: TakeClaim
) -> None:
    job = make_job()
    held = claim()
    for number in range(3, 11):
        add_log(database, held, f"line {number}")
    assert [event.number for event in list_events(database, job.id, after=7)] == [8, 9, 10]
    assert [e.number for e in list_events(database, job.id, after=2, limit=3)] == [3, 4, 5]
    assert list_events(database, job.id, after=10) == []
    assert list_events(database, "unknown") == []


def test_an_event_whose_write_fails_leaves_no_gap(database: Database, make_job: MakeJob) -> None:
    job = make_job()

    def append(message: str, *, fail: bool) -> None:
        with database.writing() as session:
            row = session.get(Job, job.id, with_for_update=True)
            assert row is not None
            append_event(session, row, EventKind.LOG, message=message)
            session.flush()
            if fail:
                raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        append("lost", fail=True)
    append("kept", fail=False)
    assert [(event.number, event.detail) for event in list_events(database, job.id)][1:] == [
        (2, {"message": "kept"})
    ]
    assert get_job(database, job.id).num_events == 2
