"""Uploads, and the list of datasets."""

from __future__ import annotations

import errno
import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.api.app import create_app
from service.record.db.database import Database
from service.record.db.models import Job
from service.settings import Settings
from tests.service.api.problems import problem
from tests.service.support.stores import stored_kinds

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


def test_broken_images_are_all_told_and_left_out_where_that_is_wished(
    client: httpx.Client, make_zip: MakeZip, split_files: Files
) -> None:
    broken = {f"shapes/train/circle/broken{number}.png": b"" for number in range(3)}
    archive = make_zip(split_files | broken)
    refused = problem(upload(client, archive), 422)
    assert "3 images can't be used" in refused["detail"]
    assert {error["where"] for error in refused["errors"]} == set(broken)
    assert all("it is empty" in error["what"] for error in refused["errors"])
    assert problem(upload(client, archive, skip_broken="maybe"), 422)["detail"] == (
        "skip_broken must be true or false but got 'maybe'"
    )
    clean = upload(client, make_zip(split_files)).json()
    skipped = upload(client, archive, skip_broken="true")
    assert (skipped.status_code, skipped.json()["id"]) == (200, clean["id"])
    assert any("3 images skipped" in note for note in skipped.json()["report"]["notes"])


def test_a_tar_and_its_contact_sheet(
    client: httpx.Client, tmp_path: Path, split_files: Files
) -> None:
    path = tmp_path / "images.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in split_files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    dataset = upload(client, path).json()
    found = dataset["report"]["contact_sheet"]
    assert found["classes"] == {"circle": 6, "square": 6}
    for fit in ("", "?fit=pad"):
        sheet = client.get(f"/datasets/{dataset['id']}/contact-sheet{fit}")
        assert sheet.headers["content-type"] == "image/jpeg"
        size = (found["columns"] * found["tile"], 2 * found["tile"])
        assert Image.open(io.BytesIO(sheet.content)).size == size
    problem(client.get(f"/datasets/{dataset['id']}/contact-sheet?fit=zoom"), 422)
    problem(client.get("/datasets/nothing/contact-sheet"), 404)
    assert client.delete(f"/datasets/{dataset['id']}").status_code == 204


def test_a_job_gets_the_fit_of_its_images(client: httpx.Client, make_zip: MakeZip) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 32), 60).save(stream, "PNG")
    wide = {f"{name}/{n}.png": stream.getvalue() for name in ("a", "b") for n in range(6)}
    dataset = upload(client, make_zip(wide)).json()["id"]
    for asked, expected in ({}, "squash"), ({"fit": "pad"}, "pad"), ({"fit": "auto"}, "squash"):
        body = {"dataset": dataset, "memory_limit": "24MB", "settings": asked}
        assert client.post("/jobs", json=body).json()["settings"]["fit"] == expected
    body = {"dataset": dataset, "memory_limit": "24MB", "settings": {"fit": "zoom"}}
    assert "zoom" in problem(client.post("/jobs", json=body), 422)["detail"]
