"""Cancel, pause, resume, retry, delete."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from service.contract.status import Status
from service.record.claims import Claim, release_job
from service.record.db.database import Database
from service.record.db.models import Job
from service.settings import Settings
from tests.service.api.problems import problem
from tests.service.support.stores import stored_kinds

ALLOWED = {
    "cancel": {Status.QUEUED, Status.RUNNING, Status.PAUSED, Status.CANCELLED},
    "pause": {Status.QUEUED, Status.RUNNING, Status.PAUSED},
    "resume": {Status.QUEUED, Status.RUNNING, Status.PAUSED},
    "retry": {Status.FAILED, Status.CANCELLED},
    "delete": set(Status) - {Status.RUNNING},
}


@pytest.mark.parametrize("action", ALLOWED)
def test_what_each_status_allows(
    client: httpx.Client, jobs_of_each_status: dict[Status, str], action: str
) -> None:
    for status, job_id in jobs_of_each_status.items():
        url = f"/jobs/{job_id}"
        is_deleted = action == "delete"
        response = client.delete(url) if is_deleted else client.post(f"{url}/{action}")
        if status in ALLOWED[action]:
            assert response.status_code == (204 if is_deleted else 202), status
        else:
            assert job_id in problem(response, 409)["detail"]
            assert client.get(url).json()["status"] == status


def test_one_that_waits_stops_at_once_and_goes_on(
    client: httpx.Client, make_job: Callable[..., Job]
) -> None:
    url = f"/jobs/{make_job().id}"
    assert client.post(f"{url}/pause").json()["status"] == "paused"
    assert client.post(f"{url}/resume").json()["status"] == "queued"
    assert client.post(f"{url}/cancel").json()["status"] == "cancelled"
    assert client.post(f"{url}/retry").json()["status"] == "queued"


def test_one_that_runs_stops_once_its_worker_has(
    client: httpx.Client,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> None:
    url = f"/jobs/{make_job().id}"
    held = claim()
    asked = client.post(f"{url}/pause").json()
    assert (asked["status"], asked["stop_request"]) == ("running", "pause")
    release_job(database, held)
    paused = client.get(url).json()
    assert (paused["status"], paused["stop_request"]) == ("paused", None)


def test_deleting_leaves_nothing(
    client: httpx.Client,
    settings: Settings,
    database: Database,
    jobs_of_each_status: dict[Status, str],
) -> None:
    job_id = jobs_of_each_status[Status.SUCCEEDED]
    scratch = settings.jobs_dir / job_id / "1" / "adapting.partial"
    scratch.parent.mkdir(parents=True)
    scratch.write_text("half done")
    assert stored_kinds(settings, database) == ["bundle"]
    deleted = client.delete(f"/jobs/{job_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert not (settings.jobs_dir / job_id).exists()
    assert stored_kinds(settings, database) == ["garbage"]
    for path in ("", "/trials", "/attempts", "/events", "/checkpoint"):
        problem(client.get(f"/jobs/{job_id}{path}"), 404)
    problem(client.delete(f"/jobs/{job_id}"), 404)
    assert len(client.get("/jobs").json()) == len(jobs_of_each_status) - 1


@pytest.mark.parametrize("status", Status)
def test_a_priority_can_be_changed(
    client: httpx.Client, jobs_of_each_status: dict[Status, str], status: Status
) -> None:
    url = f"/jobs/{jobs_of_each_status[status]}"
    changed = client.patch(url, json={"priority": "low"})
    assert (changed.status_code, changed.json()["priority"]) == (200, "low")
    assert client.get(url).json() == changed.json()
    assert changed.json()["status"] == status.value


def test_what_is_no_priority(client: httpx.Client, jobs_of_each_status: dict[Status, str]) -> None:
    url = f"/jobs/{jobs_of_each_status[Status.QUEUED]}"
    refused = problem(client.patch(url, json={"priority": "top"}), 422)
    assert "'high', 'normal' or 'low'" in refused["detail"]
    assert refused["errors"][0]["got"] == "top"
    problem(client.patch(url, json={"name": "other"}), 422)
    problem(client.patch("/jobs/abc", json={"priority": "low"}), 404)
