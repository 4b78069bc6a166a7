"""What `tinyfit adapt` does with a job that is there already; whole runs: test_pipeline.py."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from search.supernets.registry import DEFAULT_SUPERNET, locate
from service.cli.main import main
from service.commands import adapting
from service.commands.adapting import FailedJobError, adapt
from service.console import Meter
from service.contract.requests import JobRequest, JobSettings
from service.contract.status import Status
from service.errors import InputError
from service.record.claims import claim_job, fail_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.files.artifacts import ADAPTING
from service.record.jobs import get_job, list_jobs
from service.settings import AUTO_SUPERNET, Settings

Files = dict[str, bytes]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every job fails, and leaves a file; the ids of those that were worked on."""
    worked_on: list[str] = []

    def run(job_id: str, settings: Settings, database: Database, meter: Meter) -> Job:
        claim = claim_job(database, worker="w", lease_seconds=60, max_lost_attempts=3)
        assert claim is not None
        assert claim.job_id == job_id
        worked_on.append(job_id)
        place = settings.jobs_dir / job_id / str(claim.attempt)
        place.mkdir(parents=True)
        (place / ADAPTING).write_text("half done")
        fail_job(database, claim, "no luck")
        return get_job(database, job_id)

    monkeypatch.setattr(adapting, "_run", run)
    return worked_on


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job is stopped before anything is done for it."""

    def interrupt(*arguments: object) -> Job:
        raise adapting.InterruptedJobError("stopped")

    monkeypatch.setattr(adapting, "_run", interrupt)


@pytest.fixture
def run_adapt(tmp_path: Path, split_files: Files) -> Callable[..., Any]:
    for name, content in split_files.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def run(supernet: str = AUTO_SUPERNET, **changed: int) -> None:
        asked = JobSettings.model_validate({"resolutions": [32], **changed})
        request = JobRequest(dataset="", memory_limit=6_000_000, supernet=supernet, settings=asked)
        adapt(tmp_path / "images", request, tmp_path / "output", Settings(), Meter(io.StringIO()))

    return run


def test_a_failed_job_is_tried_again(failing: list[str], run_adapt: Callable[..., Any]) -> None:
    for _ in range(2):
        with pytest.raises(FailedJobError, match="failed: no luck"):
            run_adapt()
    assert failing == [failing[0]] * 2


def test_with_other_arguments_it_gives_way_to_a_new_one(
    failing: list[str], run_adapt: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(FailedJobError):
        run_adapt()
    with pytest.raises(FailedJobError):
        run_adapt(epochs=3)
    first, second = failing
    assert first != second
    state = tmp_path / "output" / ".tinyfit"
    assert [path.name for path in (state / "jobs").iterdir()] == [second]
    database = Database(f"sqlite:///{state / 'tinyfit.db'}")
    try:
        assert [(job.id, job.status) for job, _ in list_jobs(database)] == [
            (second, Status.FAILED)
        ]
    finally:
        database.close()


@pytest.mark.usefixtures("interrupted")
def test_a_job_under_way_is_not_mixed_with_another(run_adapt: Callable[..., Any]) -> None:
    with pytest.raises(adapting.InterruptedJobError):
        run_adapt()
    with pytest.raises(InputError, match="epochs not named there, 3 now"):
        run_adapt(epochs=3)


@pytest.mark.usefixtures("interrupted")
def test_a_supernet_file_replaced_under_its_name_is_another_argument(
    run_adapt: Callable[..., Any], tmp_path: Path
) -> None:
    weights = load_file(locate(DEFAULT_SUPERNET, tmp_path).path)
    supernet = tmp_path / f"{DEFAULT_SUPERNET}.safetensors"
    save_file(weights, supernet)
    for _ in range(2):
        with pytest.raises(adapting.InterruptedJobError):
            run_adapt(str(supernet))
    save_file({name: value * 1.01 for name, value in weights.items()}, supernet)
    with pytest.raises(InputError, match=r"other arguments \(supernet sha256 \w{64} there"):
        run_adapt(str(supernet))


@pytest.mark.usefixtures("interrupted")
def test_broken_images_are_all_named_or_skipped(
    run_adapt: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        (tmp_path / "images" / "shapes" / "train" / "circle" / f"x{number}.jpg").write_bytes(b"")
    command = ["adapt", str(tmp_path / "images"), "--memory-limit", "6MB"]
    command += ["--output", str(tmp_path / "output"), "--resolutions", "32"]
    assert main(command) == 2
    assert "2 images can't be used" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
    assert main([*command, "--skip-broken", "--fit", "pad"]) == 1  # interrupted
    assert "note: 2 images skipped" in capsys.readouterr().err
    assert main([*command, "--skip-broken", "--fit", "crop"]) == 2
    assert "fit pad there, crop now" in capsys.readouterr().err


@pytest.mark.usefixtures("interrupted")
def test_a_job_of_an_earlier_version_goes_on(
    run_adapt: Callable[..., Any], tmp_path: Path
) -> None:
    """It knew fewer settings."""
    with pytest.raises(adapting.InterruptedJobError):
        run_adapt()
    database = Database(f"sqlite:///{tmp_path / 'output' / '.tinyfit' / 'tinyfit.db'}")
    try:
        with database.writing() as session:
            job = session.query(Job).one()
            later = {"sampler", "time_limit_seconds", "mac_limit", "patience", "race"}
            later |= {"class_weights", "fit"}
            job.settings = {n: value for n, value in job.settings.items() if n not in later}
    finally:
        database.close()
    with pytest.raises(adapting.InterruptedJobError):
        run_adapt()
    with pytest.raises(InputError, match="patience 64 there, 3 now"):
        run_adapt(patience=3)
