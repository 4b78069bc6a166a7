"""Health, readiness, metrics, supernets, the page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from service.api.app import create_app
from service.contract.status import Priority, Status
from service.record.claims import add_trial, claim_job, lose_job, set_progress, succeed_job
from service.record.db.database import Database, now
from service.record.db.models import Attempt, Job, StageTime, Trial
from service.record.presence import mark_seen
from service.settings import Settings
from tests.service.api.problems import problem


def checks(response: httpx.Response) -> dict[str, tuple[bool, str]]:
    found = response.json()["checks"]
    return {check["name"]: (check["ok"], check["detail"]) for check in found}


def test_health_and_page(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/docs").status_code == 404  # it would load its scripts from another host


class TestReadiness:
    def test_ready(self, client: httpx.Client, database: Database) -> None:
        lonely = client.get("/readyz")
        assert (lonely.status_code, lonely.json()["status"]) == (200, "ready")
        assert set(checks(lonely)) == {"database", "schema", "storage", "workers"}
        assert all(ok for ok, _ in checks(lonely).values())
        assert "none has been seen" in checks(lonely)["workers"][1]
        mark_seen(database, "w1", "host:1")
        assert "1 up: host:1" in checks(client.get("/readyz"))["workers"][1]

    def test_an_old_schema(self, settings: Settings) -> None:
        with TestClient(create_app(settings)) as client:
            response = client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "not ready")
        ok, detail = checks(response)["schema"]
        assert not ok
        assert "tinyfit db upgrade" in detail

    def test_a_full_disk(self, settings: Settings, database: Database) -> None:
        greedy = settings.model_copy(update={"min_free_bytes": 10**18})
        with TestClient(create_app(greedy)) as client:
            response = client.get("/readyz")
        assert response.status_code == 503
        ok, detail = checks(response)["storage"]
        assert not ok
        assert "min_free_bytes" in detail

    def test_a_folder_that_can_not_be_written(
        self, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**arguments: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        with TestClient(create_app(settings)) as client:
            response = client.get("/readyz")
        assert response.status_code == 503
        assert checks(response)["storage"] == (False, "can't write to it: Read-only file system")

    def test_an_artifact_store_that_is_elsewhere(
        self, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object, **options: object) -> None:
            raise ConnectionRefusedError

        remote = settings.model_copy(update={"artifact_url": "memory://artifacts"})
        with TestClient(create_app(remote)) as client:
            response = client.get("/readyz")
            assert response.status_code == 200
            assert checks(response)["artifacts"] == (True, "their store answers")
            monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", refuse)
            response = client.get("/readyz")
        assert response.status_code == 503
        assert checks(response)["artifacts"] == (False, "their store does not answer")


def scored(job_id: str, number: int, *, reused: bool) -> Trial:
    return Trial(
        job_id=job_id,
        number=number,
        candidate={"resolution": 64},
        predicted_peak_bytes=5_000_000,
        lean_peak_bytes=5_000_000,
        accuracy=0.5,
        reused=reused,
        seconds=0.5,
        attempt=1,
        finished_at=now(),
    )


class TestMetrics:
    def samples(self, client: httpx.Client) -> dict[tuple[str, ...], float]:
        """Values by name and labels, in the labels' order of name."""
        response = client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def test_requests_are_counted_by_route(
        self, client: httpx.Client, make_job: Callable[..., Job]
    ) -> None:
        for _ in range(3):
            client.get(f"/jobs/{make_job().id}")
        client.get("/jobs/abc")
        client.get("/nowhere/1")
        client.get("/nowhere/2")
        client.request("BREW", "/jobs")
        found = self.samples(client)
        name = "tinyfit_http_requests_total"
        assert found[name, "GET", "/jobs/{job_id}", "200"] == 3
        assert found[name, "GET", "/jobs/{job_id}", "404"] == 1
        assert found[name, "GET", "unmatched", "404"] == 2
        assert [key for key in found if "BREW" in key] == []
        assert found["tinyfit_http_request_seconds_count", "GET", "/jobs/{job_id}"] == 4

    def test_refused_and_broken_requests_are_counted(
        self, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object, **named: object) -> None:
            raise RuntimeError

        monkeypatch.setattr("service.api.routes.system.list_known_supernets", fail)
        app = create_app(settings.model_copy(update={"max_jobs_per_minute": 1}))
        with TestClient(app, raise_server_exceptions=False) as client:
            problem(client.get("/supernets"), 500)
            client.post("/jobs", json={})
            problem(client.post("/jobs", json={}), 429)
            found = self.samples(client)
        statuses = {key[3] for key in found if key[0] == "tinyfit_http_requests_total"}
        assert statuses == {"500", "422", "429"}

    @pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
    def test_jobs_and_workers_as_they_are(
        self,
        client: httpx.Client,
        database: Database,
        jobs_of_each_status: dict[Status, str],
        make_job: Callable[..., Job],
    ) -> None:
        make_job()
        mark_seen(database, "w1", "host:1")
        found = self.samples(client)
        numbers = {status.value: found["tinyfit_jobs", status.value] for status in Status}
        assert numbers == {status.value: 1 for status in Status} | {"queued": 2}
        assert found["tinyfit_workers",] == 1
        assert found["tinyfit_database_up",] == 1
        assert 0 < found["tinyfit_queue_age_seconds",] < 60

    @pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
    def test_what_workers_get_done(
        self, client: httpx.Client, database: Database, make_job: Callable[..., Job]
    ) -> None:
        make_job(priority=Priority.HIGH)
        make_job(priority=Priority.LOW)
        make_job(priority=Priority.LOW)
        claim = partial(claim_job, database, worker="w", lease_seconds=60, max_lost_attempts=3)
        first = claim()
        assert first is not None
        set_progress(database, first, stage="ingest", progress=0.1, seconds_left=None)
        lose_job(database, first, max_lost_attempts=3)  # ingest was not finished
        second = claim()
        assert second is not None
        for stage in ("adapt", "search"):
            set_progress(database, second, stage=stage, progress=0.2, seconds_left=None)
        for number in range(10):
            add_trial(database, second, scored(second.job_id, number, reused=number == 0))
        begun = timedelta(minutes=10).total_seconds()
        with database.writing() as session:
            changed = update(StageTime).where(StageTime.stage == "search")
            session.execute(changed.values(started_at=StageTime.started_at - begun))
        succeed_job(database, second, {})

        found = self.samples(client)
        depths = {name: found["tinyfit_queued_jobs", name] for name in ("high", "normal", "low")}
        assert depths == {"high": 0, "normal": 0, "low": 2}
        assert found["tinyfit_ended_attempts", "lost"] == 1
        assert found["tinyfit_ended_attempts", "succeeded"] == 1
        assert found["tinyfit_ended_attempts", "cancelled"] == 0
        assert ("tinyfit_finished_stages", "ingest") not in found
        assert found["tinyfit_finished_stages", "adapt"] == 1
        assert 0 <= found["tinyfit_finished_stages_seconds", "adapt"] < 60
        assert found["tinyfit_finished_stages_seconds", "search"] == pytest.approx(begun, abs=60)
        assert found["tinyfit_trials_per_minute",] == 9 / 5

    def test_what_was_long_ago_does_not_count(
        self, client: httpx.Client, database: Database, make_job: Callable[..., Job]
    ) -> None:
        self.test_what_workers_get_done(client, database, make_job)
        with database.writing() as session:
            session.execute(update(Attempt).values(ended_at=Attempt.ended_at - 3700))
            session.execute(update(StageTime).values(ended_at=StageTime.ended_at - 3700))
            session.execute(update(Trial).values(finished_at=Trial.finished_at - 400))
        found = self.samples(client)
        assert found["tinyfit_ended_attempts", "lost"] == 0
        assert ("tinyfit_finished_stages", "adapt") not in found
        assert found["tinyfit_trials_per_minute",] == 0

    def test_two_applications_in_one_process(self, settings: Settings, database: Database) -> None:
        with TestClient(create_app(settings)) as one, TestClient(create_app(settings)) as other:
            one.get("/jobs")
            found = [self.samples(client) for client in (one, other)]
        key = ("tinyfit_http_requests_total", "GET", "/jobs", "200")
        assert (found[0].get(key), found[1].get(key)) == (1, None)


def test_supernets(client: httpx.Client, settings: Settings) -> None:
    bundled = [net for net in client.get("/supernets").json() if net["source"] == "bundled"]
    assert len(bundled) == 3
    for net in bundled:
        assert net["cached"] is True
        assert net["bytes"] > 0
        assert re.fullmatch(r"(ofa|efficientnet)_\w+\.?\w*", net["id"])


def test_the_web_process_never_imports_torch(settings: Settings) -> None:
    code = """
import sys
from fastapi.testclient import TestClient
from service.api.app import create_app
from service.record.db.database import Database
from service.settings import Settings
settings = Settings(data_dir=sys.argv[1], host="testserver")
Database(settings.resolved_database_url).upgrade()
with TestClient(create_app(settings)) as client:
    assert client.get("/healthz").status_code == 200
    assert client.get("/openapi.json").status_code == 200
    body = {"dataset": "x", "memory_limit": 1}
    assert client.post("/jobs", json=body).status_code == 404
from service.feasibility import check_feasible, with_supernet
from service.contract.requests import JobRequest
request = JobRequest(dataset="x", memory_limit=1)
try:
    check_feasible(with_supernet(request, settings), num_classes=2)
except Exception as error:
    assert type(error).__name__ == "InfeasibleLimitError", error
heavy = {"torch", "ofa", "optuna", "onnx", "onnxruntime", "sklearn", "fsspec", "s3fs"}
print(*heavy & set(sys.modules))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(settings.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
