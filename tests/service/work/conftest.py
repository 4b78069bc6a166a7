"""What tests of stages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search.registry import DEFAULT_SUPERNET
from service.record.claims import Claim, fail_job
from service.record.database import Database
from service.record.jobs import create_job
from service.record.models import Job
from service.schemas import JobRequest, JobSettings
from service.settings import Settings
from service.work import stages
from service.work.job_run import JobRun
from tests.service.held_child import predict_measurement
from tests.service.work.runs import Scoring, run_of


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

    def make(limit_bytes: int = 24_000_000, **asked: Any) -> JobRun:
        request = JobRequest(
            dataset=first.dataset_id,
            memory_limit=limit_bytes,
            supernet=DEFAULT_SUPERNET,
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
