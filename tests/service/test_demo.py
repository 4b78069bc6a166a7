from collections import Counter
from pathlib import Path

import pytest

from service.contract.requests import JobRequest
from service.datasets.store import import_dataset
from service.record.db.database import Database
from service.settings import Settings

pytest.importorskip("sklearn", reason="the demo's digits come from scikit-learn")


def test_the_digits_are_a_dataset(settings: Settings, database: Database, tmp_path: Path) -> None:
    from service.demo import MEMORY_LIMIT, SETTINGS, export_digits

    archive = tmp_path / "digits.zip"
    assert export_digits(archive) == 1797
    first = archive.read_bytes()
    dataset, _ = import_dataset(archive, settings=settings, database=database)
    assert dataset.name == "digits"
    assert dataset.classes == list("0123456789")
    sizes = Counter({split: sum(counts.values()) for split, counts in dataset.counts.items()})
    assert sizes == {"train": 1347, "test": 450}
    JobRequest.model_validate(
        {"dataset": dataset.id, "memory_limit": MEMORY_LIMIT, "settings": SETTINGS}
    )
    export_digits(archive)
    assert archive.read_bytes() == first
