"""A job's files, between attempts on machines that share nothing but the store and the record."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest
from service.contract.status import Status
from service.datasets.store import import_dataset
from service.errors import StoreUnavailableError
from service.record.claims import Claim, publish_adapted, release_job, succeed_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.files.artifacts import ADAPTED, ADAPTING, BUNDLE
from service.record.files.collecting import collect
from service.record.jobs import create_job, delete_job, get_artifact, get_job, list_artifacts
from service.settings import Settings
from service.work.job import job_files
from service.work.job.job_files import JobFiles
from service.work.job.job_run import JobRun
from service.work.job.pipeline import run_job
from service.work.job.progress import Progress, Stage
from tests.service.support.stores import STORES, stored_kinds
from tests.service.work.runs import run_of
from tinytl.errors import CancelledError

TRAINING = "tinytl.safetensors"
JOB = {"resolutions": [32], "trials": 3, "epochs": 2, "adapt_steps": 4, "batch_size": 4}


@pytest.fixture
def make_files(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[..., Claim],
    tmp_path: Path,
) -> Callable[..., JobFiles]:
    """Of the next attempt at one job, on a machine with this name."""
    job_id = make_job().id

    def make(machine: str = "a", **changed: Any) -> JobFiles:
        here = settings.model_copy(
            update={
                "data_dir": tmp_path / machine,
                "artifact_url": settings.resolved_artifact_url,
                "database_url": settings.resolved_database_url,
            }
        )
        return run_of(here, database, claim(), job_id).files

    return make


def kinds(files: JobFiles) -> list[str]:
    return [artifact.kind for artifact in list_artifacts(files.database, files.claim.job_id)]


@pytest.mark.parametrize("artifact_url", STORES, indirect=True)
def test_another_machine_finds_what_is_finished(make_files: Callable[..., JobFiles]) -> None:
    first = make_files("a")
    folder = first.workplace.path("images")
    folder.mkdir()
    for name in ("images.npy", "meta.json"):
        (folder / name).write_text(f"the {name}")
    first.publish_folder("images", folder)
    path = first.workplace.path("measurement.json")
    path.write_text("measured")
    first.publish("measurement", path, detail={"peak": 1})
    release_job(first.database, first.claim)

    second = make_files("b")
    found = second.found_folder("images")
    assert found is not None
    assert found.parent == second.workplace.directory
    assert {p.name: p.read_text() for p in found.iterdir()} == {
        "images.npy": "the images.npy",
        "meta.json": "the meta.json",
    }
    measured = second.found("measurement")
    assert measured is not None
    assert measured.read_text() == "measured"
    assert second.found("measurement", key="other") is None
    assert second.found("bundle") is None
    assert second.found_folder("image") is None


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_what_can_not_be_read_is_done_and_stored_again(
    make_files: Callable[..., JobFiles], fault: str
) -> None:
    first = make_files()
    path = first.workplace.path("measurement.json")
    path.write_text("measured")
    artifact = first.publish("measurement", path)
    blob = first.blobs.find(artifact.sha256 or "")
    if fault == "missing":
        first.blobs.objects.delete([blob.key])
    else:
        first.blobs.objects.write(blob.key, b"MEASURED")
    release_job(first.database, first.claim)
    second = make_files()
    assert second.found("measurement") is None
    path = second.workplace.path("measurement.json")
    path.write_text("measured")
    second.publish("measurement", path)
    assert second.blobs.is_intact(artifact.sha256 or "")


@pytest.mark.parametrize("artifact_url", STORES, indirect=True)
def test_another_machine_goes_on_from_the_latest_checkpoint(
    make_files: Callable[..., JobFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_files, "REMOTE_SECONDS", 0.0)
    first = make_files("a")
    first.restore()
    path = first.workplace.resumable(TRAINING)
    assert not path.exists()
    first.publish_resumable(TRAINING)  # there is none yet
    for epoch in range(2):
        path.with_name("new").write_text(f"epoch {epoch}")
        path.with_name("new").replace(path)
        first.publish_resumable(TRAINING)
    release_job(first.database, first.claim)
    assert kinds(first) == [TRAINING]
    assert stored_kinds(first.settings, first.database) == [TRAINING]  # older ones are gone

    second = make_files("b")
    second.restore()
    path = second.workplace.resumable(TRAINING)
    assert path.read_text() == "epoch 1"
    path.with_name("new").write_text("epoch 2")
    path.with_name("new").replace(path)
    release_job(second.database, second.claim)  # died before it could publish that

    third = make_files("b")  # here the file is newer than in the store
    third.restore()
    assert third.workplace.resumable(TRAINING).read_text() == "epoch 2"
    third.publish_resumable(TRAINING)
    release_job(third.database, third.claim)
    fourth = make_files("a")  # here it is older
    fourth.restore()
    assert fourth.workplace.resumable(TRAINING).read_text() == "epoch 2"
    assert stored_kinds(fourth.settings, fourth.database) == [TRAINING]


@pytest.mark.parametrize("artifact_url", ["memory"], indirect=True)
def test_a_store_elsewhere_is_not_sent_every_checkpoint(
    make_files: Callable[..., JobFiles],
) -> None:
    files = make_files()
    path = files.workplace.path(TRAINING)

    def published(number: int, *, is_last: bool = False) -> bool:
        path.with_name("new").write_text(f"epoch {number}")
        path.with_name("new").replace(path)
        files.publish_resumable(TRAINING, is_last=is_last)
        row = get_artifact(files.database, files.claim.job_id, TRAINING)
        assert row is not None
        blob = files.blobs.find(row.sha256 or "")
        return b"".join(files.blobs.read(blob, 0, blob.num_bytes)) == path.read_bytes()

    assert [published(0), published(1), published(2, is_last=True)] == [True, False, True]


def test_what_a_job_has_no_more_use_for_is_let_go(make_files: Callable[..., JobFiles]) -> None:
    files = make_files()
    for name in (ADAPTING, TRAINING):
        files.workplace.path(name).write_text(name)
        files.publish_resumable(name)
    path = files.workplace.path("adapted.safetensors")
    path.write_text("adapted")
    files.keep(ADAPTED, path, lambda row: publish_adapted(files.database, files.claim, row))
    assert kinds(files) == [ADAPTED]
    for kind in ("measurement", BUNDLE):
        files.workplace.path(kind).write_text(kind)
        files.publish(kind, files.workplace.path(kind))
    succeed_job(files.database, files.claim, {})
    assert kinds(files) == [ADAPTED, BUNDLE]
    collect(files.blobs, grace_seconds=0)
    assert stored_kinds(files.settings, files.database) == [ADAPTED, BUNDLE]
    delete_job(files.database, files.claim.job_id)
    collect(files.blobs, grace_seconds=0)
    assert stored_kinds(files.settings, files.database) == []


def test_collected_before_it_is_published_it_is_stored_again(
    make_files: Callable[..., JobFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_files()
    path = files.workplace.path("bundle.zip")
    path.write_text("bundle")
    keep, times = files.blobs.keep, []

    def keep_and_lose(*arguments: Any, **options: Any) -> str:
        times.append(keep(*arguments, **options))
        if len(times) == 1:
            assert collect(files.blobs, grace_seconds=0).num_blobs == 1
        return times[-1]

    monkeypatch.setattr(files.blobs, "keep", keep_and_lose)
    artifact = files.publish(BUNDLE, path)
    assert len(times) == 2
    assert files.blobs.is_intact(artifact.sha256 or "")


@pytest.mark.long
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "artifact_url", [pytest.param("folder", marks=pytest.mark.slow), "s3"], indirect=True
)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_goes_from_machine_to_machine(
    settings: Settings,
    database: Database,
    claim: Callable[..., Claim],
    make_zip: Callable[[Mapping[str, bytes]], Path],
    flat_files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends as on one machine, and each part of the work is done once."""
    monkeypatch.setattr(job_files, "REMOTE_SECONDS", 0.0)
    dataset, _ = import_dataset(make_zip(flat_files), settings=settings, database=database)

    def post() -> str:
        request = {
            "dataset": dataset.id,
            "memory_limit": "6MB",
            "supernet": DEFAULT_SUPERNET,
            "settings": JOB | {"reuse": False},
        }
        return create_job(database, JobRequest.model_validate(request))[0].id

    def here(machine: str) -> Settings:
        return settings.model_copy(update={"data_dir": tmp_path / machine})

    reference = post()
    run_job(here("one"), database, claim(), lambda: False)
    moving = post()
    done: list[tuple[Stage, float]] = []
    usual = Progress.report

    def report(self: Progress, stage: Stage, share: float, total: float) -> None:
        done.append((stage, share / total))
        usual(self, stage, share, total)

    monkeypatch.setattr(Progress, "report", report)
    for number, (stage, share) in enumerate(
        [(Stage.INGEST, 1.0), (Stage.ADAPT, 0.5), (Stage.SEARCH, 0.5), (Stage.TRAIN, 0.5)]
    ):
        held = claim()
        done.clear()

        def is_there(stage: Stage = stage, share: float = share) -> bool:
            return bool(done) and done[-1][0] is stage and done[-1][1] >= share

        with pytest.raises(CancelledError):
            run_job(here(f"machine-{number}"), database, held, is_there)
        release_job(database, held)
    run_job(here("last"), database, claim(), lambda: False)
    job, straight = get_job(database, moving), get_job(database, reference)
    assert job.status is Status.SUCCEEDED
    assert (job.attempt, straight.attempt) == (5, 1)
    bundles = [get_artifact(database, job_id, BUNDLE) for job_id in (moving, reference)]
    assert all(bundle is not None for bundle in bundles)
    for result in (job.result, straight.result):
        assert result is not None
        del result["measured_peak_bytes"]  # A process: it may have a page more, or less.
    assert job.result == straight.result


@pytest.mark.parametrize("artifact_url", ["memory"], indirect=True)
def test_one_that_waits_for_its_store_can_be_stopped(
    make_files: Callable[..., JobFiles],
    settings: Settings,
    database: Database,
    claim: Callable[..., Claim],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = make_files()
    run: JobRun = run_of(files.settings, database, files.claim, files.claim.job_id)
    store: Any = run.files.blobs.objects
    asked: list[object] = []

    def fail(*arguments: object, **options: object) -> object:
        asked.append(arguments)
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(store._files, "cat_file", fail)
    path = run.workplace.path("bundle.zip")
    path.write_text("bundle")
    run.should_stop = lambda: len(asked) > 2
    with pytest.raises(CancelledError):
        run.files.publish(BUNDLE, path)
    assert len(asked) == 3
    files = make_files_without_patience(files, database)
    with pytest.raises(StoreUnavailableError, match="nobody listens"):
        files.publish(BUNDLE, path)


def make_files_without_patience(files: JobFiles, database: Database) -> JobFiles:
    hasty = files.settings.model_copy(update={"artifact_patience_seconds": 0.0})
    return run_of(hasty, database, files.claim, files.claim.job_id).files
