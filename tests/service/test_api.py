import errno
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.artifacts import BUNDLE
from service.database import Database, now
from service.jobs import (
    add_trial,
    claim_job,
    get_job,
    publish_artifact,
    request_cancel,
    set_progress,
    succeed_job,
)
from service.models import Artifact, Status, Trial
from service.settings import Settings
from tinytl.plan import Plan

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]

JOB_FIELDS = {
    *("id", "name", "status", "stage", "progress", "created_at", "started_at", "finished_at"),
    *("dataset", "memory_limit_bytes", "supernet", "method", "settings", "result", "error"),
}
RESULT: dict[str, Any] = {
    "subnet": {"kernel_sizes": [3], "expand_ratios": [3], "depths": [2]},
    "resolution": 64,
    "plan": json.loads(json.dumps(asdict(Plan.whole(8)))),
    "predicted_peak_bytes": 20_000_000,
    "measured_peak_bytes": 19_000_000,
    "validation_accuracy": 0.9,
    "test_accuracy": 0.8,
    "head_only_test_accuracy": 0.6,
    "trials": 1,
}


@pytest.fixture
def app(settings: Settings, database: Database, tmp_path: Path) -> FastAPI:
    return create_app(settings.model_copy(update={"supernet_cache_dir": tmp_path / "supernets"}))


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def upload(client: httpx.Client, path: Path, **fields: str) -> httpx.Response:
    return client.post("/datasets", files={"file": path.read_bytes()}, data=fields)


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refused request."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["status"] == status
    return body


@pytest.fixture
def dataset_id(client: httpx.Client, make_zip: MakeZip, flat_files: Files) -> str:
    found: str = upload(client, make_zip(flat_files)).json()["id"]
    return found


def test_upload_and_list_datasets(
    client: httpx.Client, settings: Settings, make_zip: MakeZip, split_files: Files
) -> None:
    archive = make_zip(split_files)
    response = upload(client, archive, name="my shapes")
    assert response.status_code == 201
    dataset = response.json()
    assert response.headers["location"] == f"/datasets/{dataset['id']}"
    assert dataset["name"] == "my shapes"
    assert dataset["counts"]["train"] == {"circle": 12, "square": 12}
    again = upload(client, archive)
    assert (again.status_code, again.json()["id"]) == (200, dataset["id"])
    assert client.get("/datasets").json() == [dataset]
    assert client.get(f"/datasets/{dataset['id']}").json() == dataset
    assert list(settings.incoming_dir.iterdir()) == []


def test_refused_uploads_leave_nothing(
    client: httpx.Client, settings: Settings, make_zip: MakeZip, flat_files: Files
) -> None:
    archive = make_zip(flat_files | {"../evil.png": b"x"})
    assert "points outside" in problem(upload(client, archive), 422)["detail"]
    assert not settings.datasets_dir.exists()
    assert list(settings.incoming_dir.iterdir()) == []
    assert client.get("/datasets").json() == []


def test_an_upload_over_the_limit(
    settings: Settings, database: Database, make_zip: MakeZip, flat_files: Files
) -> None:
    small = settings.model_copy(update={"max_upload_bytes": 100})
    archive = make_zip(flat_files | {"circle/noise.png": bytes(range(256)) * 100})
    data = archive.read_bytes() + bytes(20_000)

    def unannounced() -> Iterator[bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield head + data

    with TestClient(create_app(small)) as client:
        announced = client.post("/datasets", files={"file": data})
        chunked = client.post(
            "/datasets",
            content=unannounced(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    for response in (announced, chunked):
        assert "100 B" in problem(response, 413)["detail"]
    assert list(small.incoming_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "content_type", "words"),
    [
        (b"PK", "application/zip", "curl -F file=@"),
        (b"", "multipart/form-data", "multipart form"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", "no complete field 'file'"),
        (b"garbage", "multipart/form-data; boundary=x", "cut off or malformed"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
            "cut off|no complete",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + b"n" * 2000,
            "multipart/form-data; boundary=x",
            "longer than 1000",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 1000 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
            "more than 20 fields",
        ),
    ],
)
def test_malformed_uploads(
    client: httpx.Client, settings: Settings, content: bytes, content_type: str, words: str
) -> None:
    response = client.post("/datasets", content=content, headers={"content-type": content_type})
    assert re.search(words, problem(response, 422)["detail"])
    assert list(settings.incoming_dir.iterdir()) == []


def test_a_job_from_post_to_checkpoint(
    client: httpx.Client, settings: Settings, database: Database, dataset_id: str
) -> None:
    body = {"dataset": dataset_id, "memory_limit": "24MB", "settings": {"trials": 3, "seed": 7}}
    response = client.post("/jobs", json=body)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert job.keys() == JOB_FIELDS
    assert (job["status"], job["progress"]) == ("queued", 0.0)
    assert job["memory_limit_bytes"] == 24_000_000
    assert job["method"] == "lite_residual+bias"
    assert (job["settings"]["trials"], job["settings"]["seed"]) == (3, 7)
    checkpoint_url = f"/jobs/{job['id']}/checkpoint"
    assert "no checkpoint" in problem(client.get(checkpoint_url), 404)["detail"]

    claim = claim_job(database, lease_seconds=30, max_lost_attempts=1)
    assert claim is not None
    set_progress(database, claim, stage="search", progress=0.25)
    candidate = {key: RESULT[key] for key in ("subnet", "resolution", "plan")}
    trial = Trial(
        job_id=job["id"],
        number=0,
        candidate=candidate | {"lite_residual": {}},
        predicted_peak_bytes=20_000_000,
        accuracy=0.5,
        seconds=1.0,
        attempt=1,
        finished_at=now(),
    )
    add_trial(database, claim, trial)
    running = client.get(f"/jobs/{job['id']}").json()
    assert (running["status"], running["stage"], running["progress"]) == (
        "running",
        "search",
        0.25,
    )
    (found,) = client.get(f"/jobs/{job['id']}/trials").json()
    assert found["validation_accuracy"] == 0.5
    assert found["resolution"] == 64

    content = b"the bundle"
    path = settings.jobs_dir / job["id"] / "1" / "model.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    bundle = Artifact(
        job_id=job["id"],
        kind=BUNDLE,
        path="1/model.zip",
        num_bytes=len(content),
        sha256=sha256,
        detail={},
        attempt=1,
        created_at=now(),
    )
    publish_artifact(database, claim, bundle)
    succeed_job(database, claim, RESULT)
    done = client.get(f"/jobs/{job['id']}").json()
    assert done["result"] == RESULT | {
        "checkpoint": {"url": checkpoint_url, "bytes": len(content), "sha256": sha256}
    }
    assert client.get("/jobs").json() == [done]
    download = client.get(checkpoint_url)
    assert download.content == content
    assert download.headers["content-type"] == "application/zip"
    path.unlink()
    assert "is gone" in problem(client.get(checkpoint_url), 404)["detail"]
    assert "already succeeded" in problem(client.post(f"/jobs/{job['id']}/cancel"), 409)["detail"]


def test_cancel(client: httpx.Client, database: Database, dataset_id: str) -> None:
    job = client.post("/jobs", json={"dataset": dataset_id, "memory_limit": "24MB"}).json()
    response = client.post(f"/jobs/{job['id']}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    assert get_job(database, job["id"]).status is Status.CANCELLED
    assert request_cancel(database, job["id"]).status is Status.CANCELLED


def test_an_infeasible_limit_names_the_smallest_feasible_one(
    client: httpx.Client, dataset_id: str
) -> None:
    body = {"dataset": dataset_id, "memory_limit": "100KB"}
    refused = problem(client.post("/jobs", json=body), 422)
    smallest = refused["smallest_feasible_bytes"]
    assert str(smallest) in refused["detail"]
    assert client.get("/jobs").json() == []
    assert client.post("/jobs", json=body | {"memory_limit": smallest}).status_code == 202
    problem(client.post("/jobs", json=body | {"memory_limit": smallest - 1}), 422)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory_limit": "24 parsecs"}, "24 parsecs"),
        ({"memory_limit": None}, "memory_limit"),
        ({"memory_limit": 0}, "at least 1 byte"),
        ({"method": "magic"}, "lite_residual"),
        ({"supernet": "/etc/passwd"}, "unknown supernet '/etc/passwd'"),
        ({"surprise": 1}, "surprise"),
        ({"settings": {"trials": 0}}, "settings.trials"),
        ({"settings": {"epoch": 3}}, "settings.epoch"),
        ({"settings": {"label_smoothing": 1.0}}, "less than 1"),
        ({"settings": {"resolutions": [64, 48]}}, "must rise"),
        ({"settings": {"resolutions": []}}, "at least 1"),
    ],
)
def test_bad_jobs(
    client: httpx.Client, dataset_id: str, change: dict[str, Any], words: str
) -> None:
    body = {"dataset": dataset_id, "memory_limit": "24MB"} | change
    assert words in problem(client.post("/jobs", json=body), 422)["detail"]
    assert client.get("/jobs").json() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"dataset": NaN, "memory_limit": NaN}', "memory_limit"),
        (b'{"dataset": "d", "memory_limit": Infinity}', "memory_limit"),
        (b'{"dataset": "\\ud800", "memory_limit": 1}', "dataset"),
        (b'{"dataset": "d", "memory_limit": true}', "bytes as a number"),
        (b'{"dataset": "d", "memory_limit": -1}', "not a size: '-1'"),
        (b'{"dataset": "d", "memory_limit": 9223372036854775808}', "less than or equal"),
        (b'{"dataset": "d", "memory_limit": 1' + b"0" * 30 + b"}", "less than or equal"),
        (b'{"dataset": "d", "memory_limit": 1' + b"0" * 4000 + b"}", "at most 40 characters"),
        (b'{"dataset": "d", "memory_limit": "' + b"1" * 400 + b'.5GB"}', "at most 40 characters"),
        (b'{"dataset": "' + b"d" * 50_000 + b'", "memory_limit": 1}', "at most 100 characters"),
        (b'{"dataset": "d",}', "not JSON: "),
    ],
)
def test_bodies_that_json_or_numbers_can_not_say(
    client: httpx.Client, body: bytes, words: str
) -> None:
    refused = client.post("/jobs", content=body, headers={"content-type": "application/json"})
    assert words in problem(refused, 422)["detail"]
    assert len(refused.content) < 2_000


def test_a_body_of_another_type_or_far_too_large(client: httpx.Client) -> None:
    plain = client.post("/jobs", content=b"{}", headers={"content-type": "text/plain"})
    assert "Content-Type: application/json" in problem(plain, 422)["detail"]

    def unannounced() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    for content in (b" " * 1_000_000, unannounced()):
        refused = client.post(
            "/jobs", content=content, headers={"content-type": "application/json"}
        )
        assert "larger than 100000 bytes" in problem(refused, 413)["detail"]


def test_every_error_is_a_problem_document(client: httpx.Client) -> None:
    assert (
        "no dataset 'abc'"
        in problem(client.post("/jobs", json={"dataset": "abc", "memory_limit": "24MB"}), 404)[
            "detail"
        ]
    )
    for path in ("/jobs/abc", "/jobs/abc/trials", "/jobs/abc/checkpoint", "/datasets/abc"):
        assert "'abc'" in problem(client.get(path), 404)["detail"]
    assert "'/nowhere'" in problem(client.get("/nowhere"), 404)["detail"]
    refused = client.delete("/jobs")
    assert "DELETE" in problem(refused, 405)["detail"]
    assert refused.headers["allow"] == "GET, POST"
    assert client.put("/jobs/abc/cancel").headers["allow"] == "POST"
    not_json = client.post("/jobs", content=b"{", headers={"content-type": "application/json"})
    problem(not_json, 422)
    problem(client.get("/jobs?limit=0"), 422)


def test_a_defect_is_a_problem_document_without_details(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        assert "secret" not in problem(client.get("/broken"), 500)["detail"]
    assert "secret" in caplog.text


def test_a_full_disk(
    client: httpx.Client,
    settings: Settings,
    make_zip: MakeZip,
    flat_files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = make_zip(flat_files)

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "disk is full" in problem(upload(client, archive), 507)["detail"]
    assert list(settings.incoming_dir.iterdir()) == []


def test_health_page_and_schema(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in re.sub(r"\bhttp-equiv\b", "", page.text)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/datasets", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/trials"} <= paths.keys()
    assert client.get("/docs").status_code == 404  # it would load its scripts from another host


def test_the_web_process_never_imports_torch(settings: Settings) -> None:
    code = """
import sys
from fastapi.testclient import TestClient
from service.api.app import create_app
from service.database import Database
from service.settings import Settings
settings = Settings(data_dir=sys.argv[1])
Database(settings.resolved_database_url).upgrade()
with TestClient(create_app(settings)) as client:
    assert client.get("/healthz").status_code == 200
    body = {"dataset": "x", "memory_limit": 1}
    assert client.post("/jobs", json=body).status_code == 404
from service.feasibility import check_feasible
from service.schemas import JobRequest
try:
    check_feasible(JobRequest(dataset="x", memory_limit=1), num_classes=2)
except Exception as error:
    assert type(error).__name__ == "InfeasibleLimitError", error
print(*{"torch", "ofa", "optuna", "sklearn"} & set(sys.modules))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(settings.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
