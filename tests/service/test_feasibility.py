"""Which supernets a job's data may choose from. Limits too small: api/routes/test_jobs.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from search.supernets.registry import DEFAULT_SUPERNET, bundled_supernets
from service.contract.requests import JobRequest, JobSettings, MethodChoice
from service.errors import InfeasibleLimitError
from service.feasibility import (
    candidate_spaces,
    check_feasible,
    job_spaces,
    largest,
    search_space,
    smallest,
    with_supernet,
)
from service.record.db.models import Job
from service.settings import AUTO_SUPERNET, Settings
from tinytl.description.method import Method, PeakMeaning

AUTO = Settings(supernet=AUTO_SUPERNET)
BUNDLED = [spec.id for spec in bundled_supernets()]


def request_of(
    memory_limit: int = 24_000_000, supernet: str = AUTO_SUPERNET, **asked: Any
) -> JobRequest:
    return JobRequest.model_validate(
        {"dataset": "d1", "memory_limit": memory_limit, "supernet": supernet, "settings": asked}
    )


def names(request: JobRequest) -> list[str]:
    return [space.supernet.id for space in candidate_spaces(request, 10)]


def needed_bytes(supernet: str, request: JobRequest) -> int:
    space = search_space(supernet, request.settings, request.method)
    return smallest(space, request.method.method, 10, request.settings.mac_limit).peak_bytes


def test_every_bundled_supernet_is_looked_at_where_there_is_room() -> None:
    assert names(request_of()) == BUNDLED
    assert "efficientnet_lite0" in BUNDLED


@pytest.mark.parametrize("supernet", BUNDLED)
def test_one_is_looked_at_as_soon_as_anything_of_it_fits(supernet: str) -> None:
    needed = needed_bytes(supernet, request_of())
    assert supernet in names(request_of(needed))
    assert supernet not in names(request_of(needed - 1))


def test_a_limit_of_compute_counts_too() -> None:
    least_macs = {
        supernet: smallest(space, request_of().method.method, 10, 1).macs
        for supernet in BUNDLED
        for space in [search_space(supernet, request_of().settings, MethodChoice.AUTO)]
    }
    for limit in least_macs.values():
        within = [name for name, macs in least_macs.items() if macs <= limit]
        assert names(request_of(mac_limit=limit)) == within


def test_images_are_stored_alike_for_all() -> None:
    spaces = candidate_spaces(request_of(), 10)
    assert {space.stored_size for space in spaces} == {
        max(space.resolutions[-1] for space in spaces)
    }


def test_what_nothing_fits_is_refused_with_the_least_of_all() -> None:
    needed = min(needed_bytes(supernet, request_of()) for supernet in BUNDLED)
    check_feasible(request_of(needed), num_classes=10)
    with pytest.raises(InfeasibleLimitError, match=DEFAULT_SUPERNET) as refused:
        check_feasible(request_of(needed - 1), num_classes=10)
    assert refused.value.members["smallest_feasible_bytes"] == needed


def test_auto_lies_between_the_ends_of_both_methods() -> None:
    settings = JobSettings(resolutions=(48, 64))
    spaces = {
        choice: (search_space(DEFAULT_SUPERNET, settings, choice), choice.method)
        for choice in (MethodChoice.AUTO, MethodChoice.BIAS, MethodChoice.LITE_RESIDUAL_BIAS)
    }
    auto, bias, lite = (smallest(*each, 10).peak_bytes for each in spaces.values())
    assert auto == bias < lite
    auto, bias, lite = (largest(*each, 10, 10**9).peak_bytes for each in spaces.values())
    assert auto == lite > bias


def test_a_limit_that_biases_alone_hold_is_feasible_for_auto() -> None:
    space = search_space(DEFAULT_SUPERNET, JobSettings(), MethodChoice.BIAS)
    limit = smallest(space, Method.BIAS, 10).peak_bytes

    def check(method: str, limit_bytes: int) -> None:
        request = JobRequest.model_validate(
            {"dataset": "d1", "memory_limit": limit_bytes, "method": method}
        )
        named = request.model_copy(update={"supernet": DEFAULT_SUPERNET})
        check_feasible(named, num_classes=10)

    check("auto", limit)
    with pytest.raises(InfeasibleLimitError, match=f"smallest feasible one .*{limit} bytes"):
        check("auto", limit - 1)
    with pytest.raises(InfeasibleLimitError, match=r"With method lite_residual\+bias"):
        check("lite_residual+bias", limit)


def test_a_choice_is_auto_or_a_method() -> None:
    assert [choice.value for choice in MethodChoice] == ["auto", *Method]
    assert [choice.method for choice in MethodChoice][1:] == list(Method)
    assert MethodChoice.AUTO.describe(Method.BIAS) == "bias (the search's choice)"
    assert MethodChoice.BIAS.describe(Method.BIAS) == "bias"


def test_an_installation_may_have_its_own() -> None:
    own = Settings(supernet="mine.safetensors")
    assert with_supernet(request_of(), own).supernet == "mine.safetensors"
    assert with_supernet(request_of(), AUTO).supernet == AUTO_SUPERNET


def test_a_named_one_stays() -> None:
    request = request_of(supernet=DEFAULT_SUPERNET)
    assert with_supernet(request, Settings(supernet="mine.safetensors")) is request
    assert names(request) == [DEFAULT_SUPERNET]


def job(chosen_supernet: str | None) -> Job:
    return Job(
        dataset_id="d1",
        memory_limit_bytes=24_000_000,
        supernet=AUTO_SUPERNET,
        chosen_supernet=chosen_supernet,
        peak_meaning=PeakMeaning.PROCESS,
        method=MethodChoice.AUTO.value,
        settings={},
    )


def test_once_chosen_the_space_is_that_of_the_one_chosen_and_images_stay() -> None:
    before = job_spaces(job(None), 10)
    assert [space.supernet.id for space in before] == BUNDLED
    for space in before:
        assert job_spaces(job(space.supernet.id), 10) == (space,)


def test_a_choice_of_another_version_is_gone_on_with() -> None:
    other = "ofa_proxyless_d234_e346_k357_w1.3"  # not bundled now
    (space,) = job_spaces(job(other), 10)
    assert replace(space, image_size=None) == search_space(
        other, request_of().settings, MethodChoice.AUTO
    )


@pytest.mark.parametrize("supernet", [DEFAULT_SUPERNET, AUTO_SUPERNET])
def test_a_model_that_is_too_large_for_its_device_is_refused(supernet: str) -> None:
    with pytest.raises(InfeasibleLimitError, match=r"model_size_limit 100\.0 kB") as refused:
        check_feasible(request_of(supernet=supernet, model_size_limit="100kB"), num_classes=2)
    least = refused.value.members["smallest_feasible_model_bytes"]
    check_feasible(request_of(supernet=supernet, model_size_limit=least), num_classes=2)
    with pytest.raises(InfeasibleLimitError):
        check_feasible(request_of(supernet=supernet, model_size_limit=least - 1), num_classes=2)


def test_supernets_that_are_too_large_for_the_device_are_not_looked_at() -> None:
    assert names(request_of(100_000_000)) == BUNDLED
    assert names(request_of(100_000_000, model_size_limit="700kB")) == [DEFAULT_SUPERNET]


@pytest.mark.parametrize("supernet", [DEFAULT_SUPERNET, AUTO_SUPERNET])
def test_a_network_that_classifies_in_too_much_memory_is_refused(supernet: str) -> None:
    with pytest.raises(InfeasibleLimitError, match=r"inference_memory_limit 50\.0 MB") as refused:
        check_feasible(request_of(supernet=supernet, inference_memory_limit="50MB"), num_classes=2)
    assert refused.value.members.keys() == {"smallest_feasible_inference_bytes"}
    least = refused.value.members["smallest_feasible_inference_bytes"]
    check_feasible(request_of(supernet=supernet, inference_memory_limit=least), num_classes=2)
    with pytest.raises(InfeasibleLimitError):
        check_feasible(
            request_of(supernet=supernet, inference_memory_limit=least - 1), num_classes=2
        )


def test_every_bound_that_is_too_small_is_told() -> None:
    request = request_of(inference_memory_limit="50MB", model_size_limit="100kB")
    with pytest.raises(InfeasibleLimitError, match="and inference_memory_limit") as refused:
        check_feasible(request, num_classes=2)
    needed = {
        limit: refused.value.members[f"smallest_feasible_{name}_bytes"]
        for limit, name in (("model_size_limit", "model"), ("inference_memory_limit", "inference"))
    }
    check_feasible(request_of(**needed), num_classes=2)


def test_supernets_that_classify_in_too_much_memory_are_not_looked_at() -> None:
    least = {}
    for supernet in BUNDLED:
        with pytest.raises(InfeasibleLimitError) as refused:
            check_feasible(request_of(supernet=supernet, inference_memory_limit=1), num_classes=10)
        least[supernet] = refused.value.members["smallest_feasible_inference_bytes"]
    for limit in least.values():
        within = [name for name, needed in least.items() if needed <= limit]
        assert names(request_of(100_000_000, inference_memory_limit=limit)) == within
