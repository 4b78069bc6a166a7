"""What tests of stages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search.adaptation.adapted import AdaptedSupernet
from search.elastic.supernet import load_supernet
from search.space.candidates import Candidate
from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobRequest, JobSettings
from service.record.claims import Claim, fail_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import create_job
from service.settings import Settings
from service.work.job import stages
from service.work.job.job_run import JobRun
from service.work.pools.tasks import Shared
from tests.service.conftest import shapes
from tests.service.support.held_child import predict_measurement
from tests.service.work.runs import Scoring, run_of
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.training.data import ImageStore, Sample, ingest


@pytest.fixture
def make_run(
    settings: Settings,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> Callable[..., JobRun]:
    """The first attempt at a new job over a dataset that is only a row, within a limit."""
    first = make_job()
    fail_job(database, claim(), "it was made for the sake of its dataset")

    def make(
        limit_bytes: int = 24_000_000, supernet: str = DEFAULT_SUPERNET, **asked: Any
    ) -> JobRun:
        request = JobRequest(
            dataset=first.dataset_id,
            memory_limit=limit_bytes,
            supernet=supernet,
            settings=JobSettings.model_validate(asked),
        )
        job_id = create_job(database, request)[0].id
        return run_of(settings, database, claim(), job_id)

    return make


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs trust what is predicted, instead of training in a process of its own to measure it."""
    monkeypatch.setattr(stages, "measure_in_fresh_process", predict_measurement)


@pytest.fixture
def scoring(monkeypatch: pytest.MonkeyPatch) -> Scoring:
    scoring = Scoring()
    monkeypatch.setattr("service.work.pools.tasks.score", scoring)
    return scoring


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("shared")
    samples = []
    for number, split in enumerate(("train", "val", "test")):
        for name, content in shapes(per_class=6, seed=number).items():
            path = folder / f"{split}-{name.replace('/', '-')}"
            path.write_bytes(content)
            label = ("circle", "square").index(name.partition("/")[0])
            samples.append(Sample(path=path, label=label, split=split))  # type: ignore[arg-type]
    ingest(samples, ("circle", "square"), folder / "images", image_size=48)
    supernet = load_supernet(DEFAULT_SUPERNET, folder)
    adapted = AdaptedSupernet.fresh(supernet, 2, method=Method.LITE_RESIDUAL_BIAS, seed=3)
    return Shared(store=ImageStore.open(folder / "images"), adapted=adapted)


@pytest.fixture(scope="module")
def candidate(shared: Shared) -> Candidate:
    assert shared.adapted is not None
    return Candidate(
        subnet=shared.adapted.spec.smallest,
        resolution=32,
        lite_residual=LiteResidualSize(),
        plan=Plan.whole(4),
    )
