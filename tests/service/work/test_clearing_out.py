"""What workers clear out for the whole installation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from service.contract.status import Status
from service.record.claims import Claim
from service.record.db.database import Database, now
from service.record.db.models import Installation, Job
from service.record.files.blobs import Blobs
from service.record.jobs import cancel_job, list_jobs, retry_job
from service.settings import Settings
from service.work.clearing_out import clear_out
from tests.service.support.delivery import deliver
from tests.service.support.stores import stored_kinds

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

DAY = 24 * 3600.0


def age(database: Database, job_id: str, seconds: float) -> None:
    """Let a job have ended so long ago."""
    with database.writing() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.finished_at = now() - seconds


def test_jobs_past_their_time_go_with_all_they_left(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[..., Claim],
) -> None:
    settings = settings.model_copy(update={"retention_days": 7.0, "artifact_grace_seconds": 0.0})
    jobs = {name: make_job(name).id for name in ("old", "young", "revived", "waiting")}
    for name in ("old", "young"):
        held = claim()
        assert held.job_id == jobs[name]
        deliver(settings, database, held, name.encode(), {})
    cancel_job(database, jobs["revived"])
    for name in ("old", "revived"):
        age(database, jobs[name], 8 * DAY)
    age(database, jobs["young"], 6 * DAY)
    retry_job(database, jobs["revived"])
    scratch = settings.jobs_dir / jobs["old"] / "1" / "left"
    scratch.parent.mkdir(parents=True)
    scratch.touch()
    clear_out(settings, database)
    left = {job.name: job.status for job, _ in list_jobs(database)}
    assert left == {
        "young": Status.SUCCEEDED,
        "revived": Status.QUEUED,
        "waiting": Status.QUEUED,
    }
    assert stored_kinds(settings, database) == ["bundle"]
    assert not scratch.exists()


def test_without_a_retention_jobs_stay_and_garbage_goes_once_an_hour(
    settings: Settings,
    database: Database,
    blobs: Blobs,
    make_job: Callable[..., Job],
    claim: Callable[..., Claim],
    tmp_path: Path,
) -> None:
    settings = settings.model_copy(update={"artifact_grace_seconds": 0.0})
    make_job()
    held = claim()
    deliver(settings, database, held, b"bundle", {})
    age(database, held.job_id, 1000 * DAY)
    garbage = tmp_path / "garbage"

    def clear_out_garbage() -> list[str]:
        garbage.write_text("garbage")
        blobs.keep(garbage)
        garbage.unlink()
        clear_out(settings, database)
        return stored_kinds(settings, database)

    assert clear_out_garbage() == ["bundle"]
    assert clear_out_garbage() == ["bundle", "garbage"]
    with database.writing() as session:
        installation = session.get(Installation, 1)
        assert installation is not None
        installation.collected_at = now() - 3601
    assert clear_out_garbage() == ["bundle"]
