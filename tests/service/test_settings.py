from pathlib import Path

import pytest
from pydantic import ValidationError

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
        ({"data_dirr": "/tmp"}, "data_dirr"),
    ],
)
def test_refuses_unsafe_values(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(values)
