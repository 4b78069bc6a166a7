from pathlib import Path

import pytest
from pydantic import ValidationError

from service import settings as settings_module
from service.settings import Settings


def test_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYFIT_DATA_DIR", "/srv/tinyfit")
    monkeypatch.setenv("TINYFIT_MAX_UPLOAD_BYTES", "64MB")
    settings = Settings()
    assert settings.max_upload_bytes == 64_000_000
    assert settings.resolved_database_url == "sqlite:////srv/tinyfit/tinyfit.db"
    assert settings.datasets_dir == Path("/srv/tinyfit/datasets")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": 70_000}, "65535"),
        ({"max_upload_bytes": "64 parsecs"}, "64 parsecs"),
        ({"lease_seconds": 1.0, "poll_seconds": 1.0}, "at least three times poll_seconds"),
        ({"min_images_per_class": 0}, "min_images_per_class"),
        ({"max_image_pixels": 200_000_000}, "less than or equal to 178956970"),
        ({"ray_address": "ray://head:10001"}, "auto or HOST:PORT but got 'ray://head:10001'"),
        ({"ray_address": "head"}, "auto or HOST:PORT but got 'head'"),
        ({"ray_address": "local"}, "auto or HOST:PORT but got 'local'"),
        ({"pool_processes": 0}, "pool_processes"),
        ({"ray_gpus_per_task": 2.0}, "at most 1, as a task uses one GPU, but got 2"),
        ({"ray_gpus_per_task": -0.5}, "0, or from 0.0001 to 1, but got -0.5"),
        ({"ray_gpus_per_task": 0.00001}, "0, or from 0.0001 to 1, but got 1e-05"),
        ({"ray_gpus_per_task": float("nan")}, "0, or from 0.0001 to 1, but got nan"),
        ({"ray_gpus_per_task": 0.5}, "must be 0 without a ray_address, but got 0.5"),
        ({"data_dirr": "/tmp"}, "data_dirr"),
    ],
)
def test_refuses_unsafe_values(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(values)


def test_a_cluster_needs_ray_and_no_processes_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: object())
    for address in ("auto", "127.0.0.1:6379", "ray-head:6379"):
        assert Settings(ray_address=address).ray_address == address
    assert Settings(ray_address="auto").ray_gpus_per_task == 0
    assert Settings(ray_address="auto", ray_gpus_per_task=0.25).ray_gpus_per_task == 0.25
    with pytest.raises(ValidationError, match="must be 1 where ray_address is 'auto', but got 2"):
        Settings(ray_address="auto", pool_processes=2)
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"pip install 'tinyfit\[ray\]'"):
        Settings(ray_address="auto")
