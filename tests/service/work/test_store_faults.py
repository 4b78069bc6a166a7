"""Faults of the artifact store, with real processes: writers and collectors that are killed, a
disk that is full, a server that is away."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest
from service.contract.status import Outcome, Status
from service.datasets.store import import_dataset
from service.record.db.database import Database
from service.record.db.models import Blob
from service.record.files import objects
from service.record.files.blobs import OWNER_KEY, Blobs, open_blobs
from service.record.files.collecting import collect
from service.record.jobs import create_job, get_job, list_attempts, retry_job
from service.settings import Settings
from service.work.job.progress import Stage
from tests.service.support.own_s3 import S3Server
from tests.service.support.processes import HELD_CHILD, RUN_WORKER, descendants, is_alive, wait_for
from tests.service.support.stores import JOB_KINDS, stored_kinds

pytestmark = pytest.mark.long

MakeZip = Callable[[Mapping[str, bytes]], Path]
JOB = {"resolutions": [32], "trials": 2, "epochs": 1, "adapt_steps": 2, "batch_size": 4}

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from service.record.files import blobs as module, collecting, objects
from service.record.db.database import Database
from service.settings import Settings

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def copy_half(source, target):
    Path(target).write_bytes(Path(source).read_bytes()[:100])
    die()

def refuse(*arguments):
    raise OSError(18, "no links here")

settings = Settings.model_validate_json(sys.argv[1])
point, path = sys.argv[2], Path(sys.argv[3])
blobs = module.open_blobs(settings, Database(settings.resolved_database_url))
if point == "before the object":
    blobs.objects.put = die
elif point == "within the object":
    objects.os.link, objects.shutil.copyfile = refuse, copy_half
elif point == "before it is said to be stored":
    blobs._mark_stored = die
elif point == "before it is collected":
    blobs.objects.delete = die
blobs.keep(path)
if point == "before it is collected":
    collecting.collect(blobs, grace_seconds=0)
die()
"""


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(
    "point",
    [
        *("before the object", "within the object", "before it is said to be stored"),
        *("before it is referred to", "before it is collected"),
    ],
)
def test_a_kill_leaves_nothing_for_good(
    settings: Settings,
    blobs: Blobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 100)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT, settings.model_dump_json(), point, str(path)],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    has_row = point != "before it is collected"
    with blobs.database.reading() as session:
        assert len(session.scalars(select(Blob)).all()) == has_row
    again = tmp_path / "again"
    again.write_bytes(path.read_bytes())
    assert blobs.is_intact(blobs.keep(again))
    monkeypatch.setattr(objects, "UNFINISHED_SECONDS", 0)
    collect(blobs, grace_seconds=0)
    assert stored_kinds(settings, blobs.database) == []
    with blobs.database.reading() as session:
        assert session.scalars(select(Blob)).all() == []
    assert [p.name for p in Path(blobs.objects.url).iterdir()] == [OWNER_KEY]


@contextmanager
def worker_of(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker, which ends in good order, with all that it started."""
    command = [sys.executable, "-c", RUN_WORKER, settings.model_dump_json(), *HELD_CHILD]
    worker = subprocess.Popen(command, start_new_session=True)
    try:
        yield worker
    finally:
        started = descendants(worker.pid)
        worker.terminate()
        worker.wait(30)
        wait_for(lambda: not any(map(is_alive, started)))


def post(settings: Settings, database: Database, archive: Path, **changed: Any) -> str:
    dataset, _ = import_dataset(archive, settings=settings, database=database)
    request = {
        "dataset": dataset.id,
        "memory_limit": "6MB",
        "supernet": DEFAULT_SUPERNET,
        "settings": JOB | changed,
    }
    return create_job(database, JobRequest.model_validate(request))[0].id


def check_tidy(settings: Settings, database: Database) -> None:
    """One result, and nothing of what went wrong."""
    wait_for(lambda: not any(settings.jobs_dir.iterdir()))
    collect(open_blobs(settings, database), grace_seconds=0)
    assert stored_kinds(settings, database) == JOB_KINDS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=32m", "tmpfs", str(path)]
    if mount is None or subprocess.run([mount, *options], check=False).returncode != 0:
        pytest.skip("this user can't mount a file system to fill")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(path: Path) -> None:
    """Take all space that is left on the disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_disk_that_is_full_fails_the_job_until_there_is_space(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: dict[str, bytes],
    small_disk: Path,
) -> None:
    """Where the artifact store lies on it."""
    settings = settings.model_copy(update={"artifact_url": str(small_disk / "store")})
    job_id = post(settings, database, make_zip(flat_files))
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "hold").write_text(Stage.ADAPT)
    held = settings.data_dir / "held"
    with worker_of(settings):
        wait_for(held.exists, 120)
        filler = small_disk / "filler"
        fill(filler)
        held.unlink()
        wait_for(lambda: get_job(database, job_id).status.is_final, 120)
        failed = get_job(database, job_id)
        assert failed.status is Status.FAILED
        assert "is full; free some space, then retry the job" in (failed.error or "")
        unfinished = [p for p in (small_disk / "store").iterdir() if p.suffix == ".partial"]
        assert unfinished == []
        filler.unlink()
        retry_job(database, job_id)
        wait_for(lambda: get_job(database, job_id).status is Status.SUCCEEDED, 120)
        check_tidy(settings, database)


@pytest.mark.parametrize("artifact_url", ["s3"], indirect=True)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("patience_seconds", [pytest.param(120.0, marks=pytest.mark.slow), 0.5])
def test_a_store_that_is_away_is_waited_for(
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    flat_files: dict[str, bytes],
    s3_server: S3Server,
    patience_seconds: float,
) -> None:
    """By the job's process, and where that has no patience, by the job."""
    settings = settings.model_copy(update={"artifact_patience_seconds": patience_seconds})
    job_id = post(settings, database, make_zip(flat_files))
    settings.data_dir.mkdir(exist_ok=True)
    (settings.data_dir / "hold").write_text(Stage.ADAPT)
    held = settings.data_dir / "held"
    try:
        with worker_of(settings):
            wait_for(held.exists, 120)
            s3_server.stop()
            held.unlink()
            if patience_seconds < 1:
                wait_for(lambda: Outcome.RELEASED in outcomes(database, job_id), 60)
            assert not get_job(database, job_id).status.is_final
            s3_server.start()
            wait_for(lambda: get_job(database, job_id).status.is_final, 120)
            job = get_job(database, job_id)
            assert (job.status, job.error) == (Status.SUCCEEDED, None)
            assert set(outcomes(database, job_id)) <= {Outcome.RELEASED, Outcome.SUCCEEDED}
            check_tidy(settings, database)
    finally:
        if s3_server.process is None:
            s3_server.start()


def outcomes(database: Database, job_id: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in list_attempts(database, job_id)]
