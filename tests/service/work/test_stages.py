"""Stages apart from a whole job."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.pricing import price, with_plans
from search.space import Candidate
from service.errors import ServiceError
from service.record.claims import Claim, release_job
from service.record.database import Database
from service.record.events import list_events
from service.record.models import EventKind
from service.work import stages
from tinytl.config import LiteResidualSize
from tinytl.measure import Measurement
from tinytl.plan import Plan
from tinytl.train import EpochReport

MakeRun = Callable[..., stages.JobRun]
STORE: Any = SimpleNamespace(num_classes=2)


def candidate_of(run: stages.JobRun) -> Candidate:
    return Candidate(
        subnet=run.space.supernet.smallest,
        resolution=48,
        lite_residual=LiteResidualSize(),
        plan=Plan.whole(8),
    )


@pytest.fixture
def measured_plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Measurements on a machine where training takes less from plan to plan: 32, 28, 24 MB."""
    plans: list[Plan] = []

    def measure(
        network: object,
        method: object,
        plan: Plan,
        resolution: int,
        *,
        scratch: Path,
        image_size: int,
        on_step: Callable[[], None],
    ) -> Measurement:
        assert scratch.is_dir()
        assert image_size >= resolution
        on_step()
        measured_peak_bytes = 32_000_000 - 4_000_000 * min(len(plans), 6)
        plans.append(plan)
        return Measurement(
            predicted_peak_bytes=20_000_000,
            measured_peak_bytes=measured_peak_bytes,
            storage_peak_bytes=7_000_000,
            rss_growth_bytes=None,
            process_peak_bytes=None,
            step_seconds=0.1,
            breakdown_bytes={},
        )

    monkeypatch.setattr(stages, "measure_in_fresh_process", measure)
    return plans


def test_a_plan_that_measures_above_the_limit_gives_way(
    make_run: MakeRun, measured_plans: list[Plan]
) -> None:
    run = make_run()
    candidate = candidate_of(run)
    confirmed, measured = stages.confirm(run, STORE, candidate)
    assert len(measured_plans) == 3
    assert confirmed == replace(candidate, plan=measured_plans[-1])
    assert measured.measured_peak_bytes == 24_000_000
    prices = {
        planned.plan: price(run.space, planned, run.method, 2).total_bytes
        for planned in with_plans(candidate)
    }
    menu = list(prices)
    assert measured_plans[0] == candidate.plan
    for failed, plan in pairwise(measured_plans):
        start, end = menu.index(failed), menu.index(plan)
        assert start < end
        assert prices[plan] < prices[failed] <= min(prices[p] for p in menu[start:end])


def test_a_confirmed_plan_is_not_measured_again(
    make_run: MakeRun, measured_plans: list[Plan]
) -> None:
    run = make_run()
    first = stages.confirm(run, STORE, candidate_of(run))
    measured_plans.clear()
    assert stages.confirm(run, STORE, candidate_of(run)) == first
    assert measured_plans == []


def test_what_an_earlier_version_had_chosen_is_measured_anew(
    make_run: MakeRun, measured_plans: list[Plan]
) -> None:
    run = make_run()
    candidate = candidate_of(run)
    stages.confirm(run, STORE, candidate)
    measured_plans.clear()
    other = replace(candidate, resolution=64)
    confirmed, _ = stages.confirm(run, STORE, other)
    assert confirmed.resolution == 64
    assert measured_plans != []


def test_a_job_fails_where_no_plan_holds_the_limit(
    make_run: MakeRun, measured_plans: list[Plan]
) -> None:
    run = make_run()
    run.job.memory_limit_bytes = 5_000_000
    with pytest.raises(ServiceError, match=r"8\.0 MB on this machine, above the limit of 5\.0 MB"):
        stages.confirm(run, STORE, candidate_of(run))
    assert len(set(measured_plans)) == len(measured_plans) > 6


def test_an_epoch_is_told_once_however_often_it_is_trained(
    make_run: MakeRun, database: Database, claim: Callable[[], Claim]
) -> None:
    def tell(run: stages.JobRun, training: str, epoch: int, seconds: float) -> None:
        report = EpochReport(
            epoch=epoch, num_epochs=3, train_loss=1.0, val_accuracy=0.5, seconds=seconds
        )
        run.tell_epoch(training, report)

    first = make_run()
    tell(first, "tinytl", 0, 1.0)
    tell(first, "tinytl", 0, 2.0)
    release_job(database, first.claim)
    second = replace(first, claim=claim())
    tell(second, "tinytl", 0, 3.0)
    tell(second, "tinytl", 1, 4.0)
    tell(second, "head_only", 0, 5.0)
    told = [
        (event.detail["training"], event.detail["epoch"], event.detail["seconds"])
        for event in list_events(database, first.job.id)
        if event.kind is EventKind.EPOCH
    ]
    assert told == [("tinytl", 0, 1.0), ("tinytl", 1, 4.0), ("head_only", 0, 5.0)]
