"""Which supernet a job starts from that names none. Limits too small: api/test_jobs.py."""

from typing import Any

import pytest

from search.registry import DEFAULT_SUPERNET, bundled_supernets
from service.feasibility import largest, search_space, with_supernet
from service.schemas import JobRequest
from service.settings import AUTO_SUPERNET, Settings

AUTO = Settings(supernet=AUTO_SUPERNET)
WIDEST = bundled_supernets()[-1].id


def chosen(settings: Settings = AUTO, memory_limit: int = 24_000_000, **asked: Any) -> str:
    request = JobRequest.model_validate(
        {"dataset": "d1", "memory_limit": memory_limit, "settings": asked}
    )
    return with_supernet(request, settings, num_classes=10).supernet


def test_the_narrowest_is_the_default_for_any_device() -> None:
    assert bundled_supernets()[0].id == DEFAULT_SUPERNET != WIDEST


@pytest.mark.parametrize("resolutions", [(48, 64, 80, 96), (48,)])
def test_a_wider_one_is_taken_once_all_of_it_fits(resolutions: tuple[int, ...]) -> None:
    request = JobRequest.model_validate(
        {"dataset": "d1", "memory_limit": 10**9, "settings": {"resolutions": resolutions}}
    )
    space = search_space(WIDEST, request.settings, request.method)
    needed = largest(space, request.method, 10, 10**9).peak_bytes
    assert chosen(memory_limit=needed, resolutions=resolutions) == WIDEST
    assert chosen(memory_limit=int(0.8 * needed), resolutions=resolutions) == DEFAULT_SUPERNET


def test_a_limit_of_compute_counts_too() -> None:
    assert chosen(mac_limit="100M") == WIDEST
    assert chosen(mac_limit="90M") == DEFAULT_SUPERNET


def test_an_installation_may_have_its_own() -> None:
    assert chosen(Settings(supernet="mine.safetensors")) == "mine.safetensors"


def test_a_named_one_stays() -> None:
    request = JobRequest(dataset="d1", memory_limit=24_000_000, supernet="theirs")
    assert with_supernet(request, AUTO, num_classes=10) is request
