"""Stages apart from a whole job."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.space.candidates import Candidate
from search.space.pricing import price, with_plans
from service.contract.status import EventKind
from service.errors import ServiceError
from service.record.claims import Claim, release_job
from service.record.db.database import Database
from service.record.events import list_events
from service.work.job import stages
from tests.service.support.held_child import predict_measurement
from tinytl.description.config import LiteResidualSize, NetworkConfig
from tinytl.description.method import Method, PeakMeaning
from tinytl.description.plan import Plan
from tinytl.measurement.measure import Measurement
from tinytl.native.build import BuildError
from tinytl.training.train import EpochReport

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
    """Measurements on a machine where training takes less from plan to plan: 32, 28, 24 MB. They
    are of the process; or of torch, for jobs whose peaks are torch's."""
    plans: list[Plan] = []

    def taken(plan: Plan) -> int:
        plans.append(plan)
        return 32_000_000 - 4_000_000 * min(len(plans) - 1, 6)

    def measure_process(
        network: object,
        method: object,
        plan: Plan,
        resolution: int,
        *,
        image_size: int,
        scratch: Path,
        should_stop: Callable[[], bool],
    ) -> int:
        assert scratch.is_dir()
        assert not should_stop()
        return taken(plan)

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
        of_process = plans and plans[-1] == plan
        return Measurement(
            predicted_peak_bytes=20_000_000,
            measured_peak_bytes=9_000_000 if of_process else taken(plan),
            storage_peak_bytes=7_000_000,
            rss_growth_bytes=None,
            process_peak_bytes=None,
            step_seconds=0.1,
            breakdown_bytes={},
        )

    monkeypatch.setattr(stages, "measure_process", measure_process)
    monkeypatch.setattr(stages, "measure_in_fresh_process", measure)
    return plans


@pytest.mark.parametrize("meaning", list(PeakMeaning))
def test_a_plan_that_measures_above_the_limit_gives_way(
    make_run: MakeRun, measured_plans: list[Plan], meaning: PeakMeaning
) -> None:
    run = make_run()
    run.job.peak_meaning = meaning
    candidate = candidate_of(run)
    confirmed, measured = stages.confirm(run, STORE, candidate)
    assert len(measured_plans) == 3
    assert confirmed == replace(candidate, plan=measured_plans[-1])
    assert measured.measured_bytes == 24_000_000
    is_process = meaning is PeakMeaning.PROCESS
    assert measured.torch.measured_peak_bytes == (9_000_000 if is_process else 24_000_000)
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


def test_without_a_compiler_the_prediction_binds(
    make_run: MakeRun, measured_plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def can_not_build(*_: object, **__: object) -> int:
        raise BuildError("no C compiler was found")

    monkeypatch.setattr(stages, "measure_process", can_not_build)
    run = make_run()
    candidate = candidate_of(run)
    confirmed, measured = stages.confirm(run, STORE, candidate)
    assert confirmed == candidate
    assert measured.measured_bytes is None
    assert measured.predicted_bytes == price(run.space, candidate, run.method, 2).total_bytes
    assert stages.confirm(run, STORE, candidate) == (confirmed, measured)


@pytest.mark.parametrize(
    ("size", "method"), [(None, Method.BIAS), (LiteResidualSize(), Method.LITE_RESIDUAL_BIAS)]
)
def test_a_candidate_is_measured_with_its_own_method(
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    size: LiteResidualSize | None,
    method: Method,
) -> None:
    measured: list[tuple[bool, Method]] = []

    def measure(network: NetworkConfig, by: Method, *rest: Any, **named: Any) -> Measurement:
        measured.append((network.has_lite_residual, by))
        return predict_measurement(network, by, *rest, **named)

    def measure_native(network: NetworkConfig, by: Method, *_: Any, **__: Any) -> int:
        measured.append((network.has_lite_residual, by))
        return 1

    monkeypatch.setattr(stages, "measure_process", measure_native)
    monkeypatch.setattr(stages, "measure_in_fresh_process", measure)
    run = make_run()
    candidate = replace(candidate_of(run), lite_residual=size)
    confirmed, _ = stages.confirm(run, STORE, candidate)
    assert confirmed == candidate
    assert measured == [(size is not None, method)] * 2


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
    with pytest.raises(ServiceError, match=r"takes 8\.0 MB .* above the limit of 5\.0 MB"):
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
    tell(second, "another", 0, 5.0)
    told = [
        (event.detail["training"], event.detail["epoch"], event.detail["seconds"])
        for event in list_events(database, first.job.id)
        if event.kind is EventKind.EPOCH
    ]
    assert told == [("tinytl", 0, 1.0), ("tinytl", 1, 4.0), ("another", 0, 5.0)]
