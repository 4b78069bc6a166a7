"""Uploads, and the list of datasets."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.record.database import Database
from service.record.models import Job
from service.settings import Settings
from tests.service.api.problems import problem
from tests.service.stores import stored_kinds

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


def upload(client: httpx.Client, path: Path, **fields: str) -> httpx.Response:
    return client.post("/datasets", files={"file": path.read_bytes()}, data=fields)


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


def test_a_job_takes_the_name_of_any_upload(
    client: httpx.Client, make_zip: MakeZip, split_files: Files
) -> None:
    dataset = upload(client, make_zip(split_files), name="\x1b[2Jmy\nsha\0pes").json()
    assert dataset["name"] == "\ufffd[2Jmy sha\ufffdpes"
    body = {"dataset": dataset["id"], "memory_limit": "24MB", "name": dataset["name"]}
    assert client.post("/jobs", json=body).status_code == 202


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
        (b"--x", f"multipart/form-data; boundary={'x' * 500}", "cut off or malformed"),
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


def test_the_list_goes_on_page_by_page(client: httpx.Client, make_job: Callable[..., Job]) -> None:
    for number in range(5):
        make_job(dataset=f"d{number}")
    newest_first = [dataset["id"] for dataset in client.get("/datasets").json()]
    assert sorted(newest_first) == [f"d{number}" for number in range(5)]
    found = []
    url: str | None = "/datasets?limit=2"
    while url is not None:
        page = client.get(url)
        assert len(page.json()) <= 2
        found += [dataset["id"] for dataset in page.json()]
        url = page.links.get("next", {}).get("url")
    assert found == newest_first


def test_one_that_no_job_is_over_is_deleted(
    client: httpx.Client,
    settings: Settings,
    database: Database,
    make_zip: MakeZip,
    split_files: Files,
) -> None:
    archive = make_zip(split_files)
    dataset = upload(client, archive).json()["id"]
    body = {"dataset": dataset, "memory_limit": "24MB"}
    jobs = [client.post("/jobs", json=body).json()["id"] for _ in range(4)]
    refused = problem(client.delete(f"/datasets/{dataset}"), 409)["detail"]
    assert f"({', '.join(jobs[:3])} ...); delete them first" in refused
    for job in jobs:
        assert client.delete(f"/jobs/{job}").status_code == 204
    deleted = client.delete(f"/datasets/{dataset}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert client.get("/datasets").json() == []
    problem(client.get(f"/datasets/{dataset}"), 404)
    problem(client.delete(f"/datasets/{dataset}"), 404)
    problem(client.post("/jobs", json=body), 404)
    assert stored_kinds(settings, database) == ["garbage"]
    assert upload(client, archive).status_code == 201
    assert stored_kinds(settings, database) == ["dataset"]
