"""Stages apart from a whole job."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from search.space import Candidate
from service import stages
from service.artifacts import Workplace
from service.database import Database
from service.datasets import get_dataset
from service.errors import ServiceError
from service.jobs import claim_job, get_job
from service.models import Job
from service.settings import Settings
from tinytl.config import LiteResidualSize
from tinytl.measure import Measurement
from tinytl.plan import Plan

MakeRun = Callable[[], stages.JobRun]
STORE: Any = SimpleNamespace(num_classes=2)


@pytest.fixture
def make_run(settings: Settings, database: Database, make_job: Callable[..., Job]) -> MakeRun:
    def make() -> stages.JobRun:
        job_id = make_job().id
        claim = claim_job(database, lease_seconds=60, max_lost_attempts=3)
        assert claim is not None
        run = stages.JobRun(
            settings=settings,
            database=database,
            claim=claim,
            job=get_job(database, job_id),
            dataset=get_dataset(database, "d1"),
            workplace=Workplace(job_dir=settings.jobs_dir / job_id, attempt=claim.attempt),
            should_stop=lambda: False,
        )
        run.__dict__["progress"] = SimpleNamespace(report=lambda *arguments: None)
        return run

    return make


def candidate_of(run: stages.JobRun) -> Candidate:
    return Candidate(
        subnet=run.space.supernet.smallest,
        resolution=48,
        lite_residual=LiteResidualSize(),
        plan=Plan(batch_size=8, micro_batch_sizes=(8,)),
    )


@pytest.fixture
def measured_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measurements on a machine where only micro-batches up to 3 stay under 24 MB."""
    sizes: list[int] = []

    def measure(
        network: object, method: object, plan: Plan, resolution: int, *, image_size: int
    ) -> Measurement:
        assert image_size >= resolution
        sizes.append(plan.micro_batch_size)
        return Measurement(
            predicted_peak_bytes=20_000_000,
            measured_peak_bytes=8_000_000 * plan.micro_batch_size,
            rss_growth_bytes=None,
            step_seconds=0.1,
            breakdown_bytes={},
        )

    monkeypatch.setattr(stages, "measure_in_fresh_process", measure)
    return sizes


def test_a_plan_that_measures_above_the_limit_gives_way(
    make_run: MakeRun, measured_sizes: list[int]
) -> None:
    run = make_run()
    confirmed, measured = stages.confirm(run, STORE, candidate_of(run))
    assert measured_sizes == [8, 4, 3]
    assert confirmed.plan.micro_batch_sizes == (3,)
    assert confirmed.subnet == candidate_of(run).subnet
    assert measured.measured_peak_bytes == 24_000_000


def test_a_confirmed_plan_is_not_measured_again(
    make_run: MakeRun, measured_sizes: list[int]
) -> None:
    run = make_run()
    first = stages.confirm(run, STORE, candidate_of(run))
    measured_sizes.clear()
    assert stages.confirm(run, STORE, candidate_of(run)) == first
    assert measured_sizes == []


def test_a_job_fails_where_no_plan_holds_the_limit(
    make_run: MakeRun, measured_sizes: list[int]
) -> None:
    run = make_run()
    run.job.memory_limit_bytes = 5_000_000
    with pytest.raises(ServiceError, match=r"8\.0 MB on this machine, above the limit of 5\.0 MB"):
        stages.confirm(run, STORE, candidate_of(run))
