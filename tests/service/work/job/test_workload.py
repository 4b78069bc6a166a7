"""How much work a job is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from search.space.architecture import SupernetSpec
from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobSettings
from service.work.job.progress import Stage
from service.work.job.workload import SplitSizes, Workload

FEW = {"adapt_steps": 100, "trials": 20, "epochs": 10}
SIZES = SplitSizes(train=100, val=20, test=30)


def workload_of(
    *,
    supernet: str = DEFAULT_SUPERNET,
    sizes: SplitSizes = SIZES,
    look_epochs: Sequence[int] = (),
    **asked: Any,
) -> Workload:
    spec = SupernetSpec.parse(supernet)
    return Workload.of(
        JobSettings.model_validate(asked),
        spec.recipe,
        sizes,
        resolutions=spec.resolutions,
        look_epochs=look_epochs,
    )


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"adapt_steps": 400}, Stage.ADAPT),
        ({"trials": 80}, Stage.SEARCH),
        ({"epochs": 40}, Stage.TRAIN),
    ],
)
def test_more_of_a_setting_is_more_work_in_its_stage_alone(
    change: dict[str, int], stage: Stage
) -> None:
    few, more = workload_of(**FEW).stages, workload_of(**FEW | change).stages
    assert {name for name in Stage if few[name] != more[name]} == {stage}
    assert few[stage] < more[stage]


def test_a_search_that_is_limited_by_time_is_as_much_work_as_the_time_allows() -> None:
    def searching(**asked: int) -> float:
        return workload_of(**asked).searching

    assert searching(time_limit_seconds=6) < searching(time_limit_seconds=12)
    assert searching(time_limit_seconds=12) < searching(trials=10_000)
    assert searching(time_limit_seconds=3600, trials=5) == searching(trials=5)


def test_the_parts_make_up_their_stages() -> None:
    work = workload_of(look_epochs=[1, 1, 4], **FEW)
    assert work.stages[Stage.ADAPT] == work.looking + work.adapting
    assert work.stages[Stage.TRAIN] == work.measuring + work.training
    assert work.looked == pytest.approx(work.looking / work.stages[Stage.ADAPT])
    assert work.measured == pytest.approx(work.measuring / work.stages[Stage.TRAIN])
    assert workload_of(**FEW).looked == 0
    assert workload_of(**FEW | {"epochs": 40}).training == 4 * work.training


def test_where_nothing_is_said_the_supernet_decides() -> None:
    """And how many images there are: a few are looked at more often."""
    many = SplitSizes(train=900, val=100, test=100)
    few = SplitSizes(train=450, val=50, test=100)
    for name in (DEFAULT_SUPERNET, "efficientnet_lite0"):
        recipe = SupernetSpec.parse(name).recipe
        found = workload_of(supernet=name, sizes=many)
        told = workload_of(
            supernet=name,
            sizes=many,
            epochs=recipe.epochs(1000),
            adapt_steps=recipe.adapt_steps,
        )
        assert found == told
        assert recipe.least_epochs <= recipe.epochs(1000) < recipe.epochs(500)
        assert recipe.epochs(1) == recipe.epochs(0) == recipe.most_epochs
        of_few = workload_of(supernet=name, sizes=few).training
        assert of_few == pytest.approx(found.training, rel=0.2)


def test_the_stages_shares_are_those_of_a_real_job() -> None:
    """flowers17 at 24 MB on one core of an AMD EPYC: seconds, as its events tell them."""
    seconds = {
        Stage.INGEST: 1.5,
        Stage.ADAPT: 28.0,
        Stage.SEARCH: 63.9,
        Stage.TRAIN: 101.6,
        Stage.EXPORT: 12.4,
    }
    work = workload_of(
        supernet="efficientnet_lite0",
        sizes=SplitSizes(train=867, val=221, test=250),
        look_epochs=[1, 1, 1],
    ).stages
    total, all_seconds = sum(work.values()), sum(seconds.values())
    for stage in Stage:
        share = seconds[stage] / all_seconds
        assert work[stage] / total == pytest.approx(share, rel=0.25, abs=0.02), stage
