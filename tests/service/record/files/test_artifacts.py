"""Which files of a job stay, as it goes through its life."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from service.contract.status import Status
from service.record.claims import (
    Claim,
    fail_job,
    lose_job,
    publish_artifact,
    release_job,
    succeed_job,
)
from service.record.db.database import Database, now
from service.record.db.models import Artifact, Attempt, Job
from service.record.files.artifacts import ADAPTING, Workplace, remove_leftovers
from service.record.jobs import cancel_job, delete_job, pause_job, retry_job
from service.settings import Settings
from service.work.sweeping import sweep, tidy_job

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MakeJob = Callable[..., Job]
GiveClaim = Callable[[], Claim]


def work_on(
    settings: Settings, database: Database, claim: Claim, published: Sequence[str], *others: str
) -> Workplace:
    """Write files as an attempt would, and publish some of them as earlier versions did."""
    place = Workplace(job_dir=settings.jobs_dir / claim.job_id, attempt=claim.attempt)
    for name in (*published, *others):
        path = place.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of attempt {claim.attempt}")
    for name in published:
        kind, path = name.split(".")[0].split("/")[0], place.path(name.split("/")[0])
        artifact = Artifact(
            job_id=claim.job_id,
            kind=kind,
            path=path.relative_to(place.job_dir).as_posix(),
            num_bytes=0,
            sha256=None,
            detail={},
            attempt=claim.attempt,
            created_at=now(),
        )
        publish_artifact(database, claim, artifact)
    return place


def files(settings: Settings) -> list[str]:
    """Every file under the jobs' folder, without the job's own name; empty folders with a /."""
    left = []
    for path in sorted(settings.jobs_dir.rglob("*")):
        if path.is_file() or not any(path.iterdir()):
            name = "/".join(path.relative_to(settings.jobs_dir).parts[1:])
            left.append(name if path.is_file() else f"{name}/")
    return left


PUBLISHED = ("images/images.npy", "adapted.safetensors")
LITTER = ("images.partial.77/images.npy", "tinytl.safetensors.partial.77")


def test_a_resumable_file_goes_on_from_the_latest_attempt(settings: Settings) -> None:
    name = ADAPTING
    job_dir = settings.jobs_dir / "job"
    for attempt in (2, 10):
        Workplace(job_dir=job_dir, attempt=attempt).path(name).write_text(f"of {attempt}")
    place = Workplace(job_dir=job_dir, attempt=11)
    assert place.resumable(name).read_text() == "of 10"
    assert [path for path in files(settings) if not path.endswith("/")] == [f"11/{name}"]
    place.path(name).write_text("of 11")
    assert place.resumable(name).read_text() == "of 11"
    place.forget(name)
    assert not place.path(name).exists()
    assert not place.resumable(name).exists()


@pytest.mark.parametrize("has_links", [True, False])
def test_an_adopted_file_outlives_its_source(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*paths: Path) -> None:
        if not paths[0].exists():
            raise FileNotFoundError(paths[0])
        raise OSError(errno.EXDEV, "invalid cross-device link")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    source = Workplace(job_dir=settings.jobs_dir / "a", attempt=1).path("adapted.safetensors")
    source.write_text("adapted")
    place = Workplace(job_dir=settings.jobs_dir / "b", attempt=3)
    for _ in range(2):
        adopted = place.adopt(source, "adapted.safetensors")
        assert adopted.samefile(source) is has_links
    remove_leftovers(settings, "a")
    assert adopted.read_text() == "adapted"
    assert files(settings) == ["3/adapted.safetensors"]
    with pytest.raises(FileNotFoundError):
        place.adopt(source, "adapted.safetensors")


def test_a_succeeded_job_keeps_its_bundle_and_its_adapted_supernet(
    settings: Settings, database: Database, make_job: MakeJob, claim: GiveClaim
) -> None:
    job = make_job()
    held = claim()
    work_on(settings, database, held, PUBLISHED, *LITTER, "tinytl.safetensors")
    work_on(settings, database, held, ["bundle.zip"])
    succeed_job(database, held, {})
    tidy_job(settings, database, job.id)
    assert files(settings) == ["1/adapted.safetensors", "1/bundle.zip"]


@pytest.mark.parametrize("end", ["failed", "cancelled", "paused", "queued", "lost"])
def test_a_job_that_can_go_on_keeps_what_it_needs_to(
    settings: Settings, database: Database, make_job: MakeJob, claim: GiveClaim, end: str
) -> None:
    job = make_job()
    first = claim()
    work_on(settings, database, first, PUBLISHED, "tinytl.safetensors")
    release_job(database, first)
    second = claim()
    work_on(settings, database, second, [], "tinytl.safetensors", *LITTER)
    if end == "failed":
        fail_job(database, second, "no")
    elif end == "lost":
        lose_job(database, second, max_lost_attempts=3)
    else:
        if end != "queued":
            {"cancelled": cancel_job, "paused": pause_job}[end](database, job.id)
        release_job(database, second)
    tidy_job(settings, database, job.id)
    assert files(settings) == [
        "1/adapted.safetensors",
        "1/images/images.npy",
        "2/tinytl.safetensors",
    ]


def test_a_deleted_job_keeps_nothing(
    settings: Settings, database: Database, make_job: MakeJob, claim: GiveClaim
) -> None:
    job = make_job()
    held = claim()
    work_on(settings, database, held, PUBLISHED, *LITTER)
    fail_job(database, held, "no")
    delete_job(database, job.id)
    remove_leftovers(settings, job.id)
    assert files(settings) == []
    assert not (settings.jobs_dir / job.id).exists()


def test_a_sweep_clears_up_after_whoever_wrote_after_the_end(
    settings: Settings, database: Database, make_job: MakeJob, claim: GiveClaim
) -> None:
    sweep(settings, database)
    done, deleted = make_job(), make_job()
    for job in (done, deleted):
        held = claim()
        work_on(settings, database, held, PUBLISHED)
        work_on(settings, database, held, ["bundle.zip"])
        succeed_job(database, held, {})
        tidy_job(settings, database, job.id)
    delete_job(database, deleted.id)
    zombie = Workplace(job_dir=settings.jobs_dir / done.id, attempt=1)
    zombie.path("tinytl.safetensors.partial.9").write_text("late")
    sweep(settings, database)
    assert files(settings) == ["1/adapted.safetensors", "1/bundle.zip"]
    assert (settings.jobs_dir / done.id / "1" / "bundle.zip").exists()


def test_a_sweep_leaves_attempts_at_work_alone(
    settings: Settings, database: Database, make_job: MakeJob, claim: GiveClaim
) -> None:
    """A running job, and one that was claimed just after the sweep had looked it up."""
    running, failed = make_job(), make_job()
    work_on(settings, database, claim(), PUBLISHED, *LITTER)
    held = claim()
    work_on(settings, database, held, PUBLISHED, "tinytl.safetensors")
    fail_job(database, held, "no")
    later = Workplace(job_dir=settings.jobs_dir / failed.id, attempt=2)
    later.path("images.partial.8").write_text("at work")
    before = files(settings)
    sweep(settings, database)
    assert files(settings) == before
    retry_job(database, failed.id)
    assert later.resumable("tinytl.safetensors").read_text() == "tinytl.safetensors of attempt 1"
    assert running.id != failed.id


def test_a_sweep_spares_the_jobs_of_another_database(
    settings: Settings, database: Database, make_job: MakeJob, claim: GiveClaim, tmp_path: Path
) -> None:
    sweep(settings, database)
    make_job()
    work_on(settings, database, claim(), ["bundle.zip"])
    url = f"sqlite:///{tmp_path / 'other.db'}"
    other = Database(url)
    other.upgrade()
    sweep(settings.model_copy(update={"database_url": url}), other)
    other.close()
    assert files(settings) == ["1/bundle.zip"]


def test_a_sweep_over_many_finished_jobs_is_quick(
    settings: Settings, database: Database, make_job: MakeJob
) -> None:
    """A twentieth of ten thousand, in a twentieth of five seconds and some."""
    make_job()
    with database.writing() as session:
        example = session.query(Job).one()
        for number in range(500):
            job_id = f"{number:032x}"
            values = {"id": job_id, "status": Status.SUCCEEDED, "attempt": 1, "num_events": 0}
            columns = [column.key for column in Job.__table__.columns]
            copied = {key: getattr(example, key) for key in columns if key not in values}
            session.add(Job(**copied, **values))
            session.flush()
            session.add(Attempt(job_id=job_id, number=1, worker="x", started_at=now()))
            path = settings.jobs_dir / job_id / "1" / "model.tinyfit.zip"
            path.parent.mkdir(parents=True)
            path.write_text("bundle")
            session.add(
                Artifact(
                    job_id=job_id,
                    kind="bundle",
                    path="1/model.tinyfit.zip",
                    num_bytes=6,
                    sha256=None,
                    detail={},
                    attempt=1,
                    created_at=now(),
                )
            )
    started = time.perf_counter()
    sweep(settings, database)
    assert time.perf_counter() - started < 1.0
    assert files(settings) == ["1/model.tinyfit.zip"] * 500
