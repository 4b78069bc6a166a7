"""What the API's tests share: the application, in process or served, and jobs of every status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.contract.status import Status
from service.record.claims import Claim, fail_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import cancel_job, pause_job
from service.settings import Settings
from tests.service.api.live import served
from tests.service.support import delivery

RESULT: dict[str, Any] = {
    "method": "bias",
    "subnet": {"kernel_sizes": [3], "expand_ratios": [3], "depths": [2]},
    "resolution": 64,
    "plan": {"batch_size": 8},
    "predicted_peak_bytes": 20_000_000,
    "measured_peak_bytes": 19_000_000,
    "validation_accuracy": 0.9,
    "test_accuracy": 0.8,
    "head_only_test_accuracy": 0.6,
    "trials": 1,
    "memory": {"breakdown_bytes": {"weights": 20_000_000}, "storage_peak_bytes": 18_000_000},
}
BUNDLE_BYTES = bytes(range(256)) * 4

MakeJob = Callable[..., Job]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    cache_dir = settings.data_dir.parent / "supernets"
    return settings.model_copy(
        update={
            "supernet_cache_dir": cache_dir,
            "host": "testserver",  # what TestClient calls it
            "event_poll_seconds": 0.05,
        }
    )


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def live_client(app: FastAPI) -> Iterator[httpx.Client]:
    """Of a real server in this process: answers that take time are seen as they come."""
    with served(app) as url, httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def deliver(settings: Settings, database: Database) -> Callable[[Claim], None]:
    """Ends a claimed job well, with a bundle."""
    return lambda claim: delivery.deliver(settings, database, claim, BUNDLE_BYTES, RESULT)


@pytest.fixture
def jobs_of_each_status(
    database: Database,
    make_job: MakeJob,
    claim: Callable[[], Claim],
    deliver: Callable[[Claim], None],
) -> dict[Status, str]:
    """Ids of jobs, one for each status."""
    ids = {}
    for status in (Status.SUCCEEDED, Status.FAILED, Status.RUNNING):
        ids[status] = make_job(status.value).id
        held = claim()
        if status is Status.SUCCEEDED:
            deliver(held)
        elif status is Status.FAILED:
            fail_job(database, held, "out of luck")
    ids[Status.PAUSED] = pause_job(database, make_job("paused").id).id
    ids[Status.CANCELLED] = cancel_job(database, make_job("cancelled").id).id
    ids[Status.QUEUED] = make_job("queued").id
    return ids
