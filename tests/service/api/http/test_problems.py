"""Every error leaves as a problem document."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError, ProgrammingError

from service.api.app import create_app
from service.settings import Settings
from tests.service.api.problems import problem


def test_unknown_ids_and_paths(client: httpx.Client) -> None:
    body = {"dataset": "abc", "memory_limit": "24MB"}
    assert "no dataset 'abc'" in problem(client.post("/jobs", json=body), 404)["detail"]
    for path in (
        "/jobs/abc",
        "/jobs/abc/trials",
        "/jobs/abc/front",
        "/jobs/abc/checkpoint",
        "/datasets/abc",
    ):
        found = problem(client.get(path), 404)
        assert "'abc'" in found["detail"]
        assert found["instance"] == path
    for action in ("cancel", "pause", "resume", "retry"):
        problem(client.post(f"/jobs/abc/{action}"), 404)
    problem(client.delete("/jobs/abc"), 404)
    assert "'/nowhere'" in problem(client.get("/nowhere"), 404)["detail"]
    assert "'/static/nowhere'" in problem(client.get("/static/nowhere"), 404)["detail"]


@pytest.mark.parametrize("path", ["/jobs/%00", "/jobs/%00/events", "/datasets/%0a"])
def test_ids_that_no_database_can_hold(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 422)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/jobs", "GET, HEAD, POST"),
        ("PUT", "/jobs/abc", "GET, HEAD, PATCH, DELETE"),
        ("GET", "/jobs/abc/cancel", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/static/app.js", "GET, HEAD"),
    ],
)
def test_other_methods(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    refused = client.request(method, path)
    detail = problem(refused, 405)["detail"]
    assert method in detail
    assert detail.endswith(f"use {allowed}")
    assert refused.headers["allow"] == allowed


def test_a_defect_shows_no_details(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        assert "secret" not in problem(client.get("/broken"), 500)["detail"]
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OperationalError("SELECT", {}, ConnectionError("refused")), 503),
        (ProgrammingError("SELECT", {}, ValueError("no such column")), 500),
    ],
)
def test_an_outage_of_the_database_is_told_from_a_defect(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("service.record.jobs.find_job", fail)
    refused = client.get("/jobs/abc")
    assert str(error) not in problem(refused, status)["detail"]
    assert ("retry-after" in refused.headers) == (status == 503)


def test_a_server_without_its_database(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens there. Each request says so, and none waits."""
    password = "s3cret"
    url = f"postgresql+psycopg://me:{password}@127.0.0.1:1/tinyfit"
    app = create_app(settings.model_copy(update={"database_url": url}))
    with TestClient(app, raise_server_exceptions=False) as client:
        for path in ("/jobs", "/jobs/abc", "/jobs/abc/events", "/healthz"):
            refused = client.get(path)
            assert "try again" in problem(refused, 503)["detail"]
            assert int(refused.headers["retry-after"]) > 0
        readiness = client.get("/readyz")
        assert readiness.status_code == 503
        assert readiness.json()["checks"][0]["ok"] is False
        assert "tinyfit_database_up 0.0" in _metrics(client)
        assert client.get("/").status_code == 200
    assert password not in caplog.text


def _metrics(client: httpx.Client) -> str:
    """Those of an open API, whose keys nobody can look up now."""
    found: str = client.app.state.metrics.render().decode()  # type: ignore[attr-defined]
    return found
