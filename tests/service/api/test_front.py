"""The memory-accuracy front of a job."""

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import httpx
import pytest

from search.space.candidates import Candidate, SearchSpace
from search.space.lite_residual_sizes import LARGEST
from search.space.pricing import macs_of, price
from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.requests import JobSettings, MethodChoice
from service.feasibility import search_space
from service.record.claims import Claim, add_trial, succeed_job
from service.record.db.database import Database, now
from service.record.db.models import Job, Trial
from tinytl.accounting.planner import plans, step_time
from tinytl.description.method import Method
from tinytl.description.plan import Plan

METHOD = Method.LITE_RESIDUAL_BIAS
FAST, LEAN = plans(8)[0], Plan.whole(8, 1)


@pytest.fixture
def space() -> SearchSpace:
    return search_space(DEFAULT_SUPERNET, JobSettings(), MethodChoice.AUTO)


@pytest.fixture
def add(
    database: Database, make_job: Callable[..., Job], claim: Callable[[], Claim]
) -> Callable[..., None]:
    """Adds a trial to the job that `claim` has."""
    held = []

    def add(number: int, candidate: Candidate, accuracy: float, **other: Any) -> Claim:
        if not held:
            make_job()
            held.append(claim())
        planned = replace(candidate, plan=FAST)
        values = {
            "lean_plan": asdict(LEAN),
            "lean_peak_bytes": 1_000_000 * (number + 1),
            "macs": 5_000_000,
            "num_images": 96,
        }
        trial = Trial(
            job_id=held[0].job_id,
            number=number,
            candidate=planned.to_dict(),
            predicted_peak_bytes=20_000_000,
            accuracy=accuracy,
            seconds=1.0,
            attempt=1,
            finished_at=now(),
            **values | other,
        )
        add_trial(database, held[0], trial)
        return held[0]

    return add


def test_the_ends_are_there_from_the_beginning(
    client: httpx.Client, make_job: Callable[..., Job], space: SearchSpace
) -> None:
    front = client.get(f"/jobs/{make_job().id}/front").json()
    assert (front["limit_bytes"], front["mac_limit"], front["points"]) == (24_000_000, None, [])
    smallest, largest = front["smallest"], front["largest"]
    assert (smallest["resolution"], largest["resolution"]) == (48, 96)
    assert smallest["peak_bytes"] < largest["peak_bytes"]
    largest_candidate = space.candidate(space.supernet.largest, 96, LARGEST)
    assert largest["macs"] == macs_of(space, largest_candidate, METHOD, 2)
    lean_bytes = [
        price(space, replace(largest_candidate, plan=plan), METHOD, 2).total_bytes
        for plan in plans(8)
        if (plan.optimizer_bits, plan.trained_bits) == (8, 32)
    ]
    assert largest["peak_bytes"] == min(lean_bytes)
    body = {"dataset": "d1", "memory_limit": smallest["peak_bytes"]}
    assert client.post("/jobs", json=body).status_code == 202
    body["memory_limit"] -= 1
    assert client.post("/jobs", json=body).status_code == 422


def test_points_say_what_they_cost(
    client: httpx.Client, add: Callable[..., Claim], space: SearchSpace
) -> None:
    candidates = [space.smallest(resolution) for resolution in (48, 64, 80, 96)]
    held = add(0, candidates[0], 0.5)
    add(1, candidates[1], 0.4)
    add(2, candidates[2], 0.75, num_images=None, macs=None, lean_plan=None)
    add(3, candidates[3], 1.0, is_complete=False, num_images=10)
    front = client.get(f"/jobs/{held.job_id}/front").json()
    first, last = front["points"]
    assert (first["trial"], last["trial"]) == (0, 2)
    assert (first["peak_bytes"], first["macs"], first["resolution"]) == (1_000_000, 5_000_000, 48)
    assert first["plan"] == asdict(LEAN) | {"stretches": first["plan"]["stretches"]}
    assert first["slowdown"] == pytest.approx(step_time(LEAN) / step_time(FAST), abs=1e-3)
    assert first["lite_residual"] == candidates[0].to_dict()["lite_residual"]
    assert first["subnet"] == candidates[0].to_dict()["subnet"]
    assert first["standard_error"] == pytest.approx(0.05)
    assert (last["slowdown"], last["standard_error"], last["macs"]) == (1.0, None, None)
    assert [point["is_chosen"] for point in front["points"]] == [False, True]
    for one, other in pairwise(front["points"]):
        assert one["peak_bytes"] < other["peak_bytes"]
        assert one["validation_accuracy"] < other["validation_accuracy"]


def test_points_and_trials_say_whether_there_are_lite_residuals(
    client: httpx.Client, add: Callable[..., Claim], space: SearchSpace
) -> None:
    add(0, space.candidate(space.supernet.smallest, 48, None), 0.5)
    held = add(1, space.candidate(space.supernet.smallest, 48, LARGEST), 0.75)
    front = client.get(f"/jobs/{held.job_id}/front").json()["points"]
    for found in (front, client.get(f"/jobs/{held.job_id}/trials").json()):
        assert [each["method"] for each in found] == ["bias", "lite_residual+bias"]
        assert [each["lite_residual"] for each in found] == [None, asdict(LARGEST)]


@pytest.mark.parametrize("named", ["bias", "full"])
def test_a_named_method_without_lite_residuals_shows_none(
    client: httpx.Client,
    add: Callable[..., Claim],
    space: SearchSpace,
    database: Database,
    named: str,
) -> None:
    held = add(0, space.candidate(space.supernet.smallest, 48, LARGEST), 0.5)
    with database.writing() as session:
        session.get_one(Job, held.job_id).method = named
    (point,) = client.get(f"/jobs/{held.job_id}/front").json()["points"]
    (trial,) = client.get(f"/jobs/{held.job_id}/trials").json()
    for found in (point, trial):
        assert (found["method"], found["lite_residual"]) == (named, None)


def test_a_result_of_an_earlier_version_was_of_the_method_that_was_named(
    client: httpx.Client, add: Callable[..., Claim], space: SearchSpace, database: Database
) -> None:
    held = add(0, space.smallest(48), 0.5)
    with database.writing() as session:
        session.get_one(Job, held.job_id).method = "norm+head"
    shares = dict.fromkeys(
        ("validation_accuracy", "test_accuracy", "head_only_test_accuracy"), 0.5
    )
    numbers = dict.fromkeys(("predicted_peak_bytes", "measured_peak_bytes", "trials"), 1)
    result = {"subnet": {}, "resolution": 48, "plan": {}, **shares, **numbers}
    succeed_job(database, held, result)
    found = client.get(f"/jobs/{held.job_id}").json()
    assert found["method"] == found["result"]["method"] == "norm+head"


def test_what_an_earlier_version_chose_is_not_mistaken(
    client: httpx.Client, add: Callable[..., Claim], space: SearchSpace, database: Database
) -> None:
    """It took the earliest of the most accurate ones."""
    add(1, space.smallest(48), 0.5, lean_peak_bytes=2_000_000)
    held = add(0, space.smallest(64), 0.5, lean_peak_bytes=3_000_000)
    result = {name: space.smallest(64).to_dict()[name] for name in ("subnet", "resolution")}
    needed = {
        "plan": {},
        "predicted_peak_bytes": 1,
        "measured_peak_bytes": 1,
        "validation_accuracy": 0.5,
        "test_accuracy": 0.5,
        "head_only_test_accuracy": 0.5,
        "trials": 2,
    }
    succeed_job(database, held, result | needed)
    (point,) = client.get(f"/jobs/{held.job_id}/front").json()["points"]
    assert (point["trial"], point["is_chosen"]) == (1, False)
