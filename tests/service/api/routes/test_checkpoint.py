"""The finished job's bundle: whole, in parts, not again."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from fastapi import FastAPI

from service.contract.status import Status
from service.errors import StoreUnavailableError
from service.record.db.database import Database
from service.record.db.models import Artifact
from service.record.files.blobs import open_blobs
from service.settings import Settings
from tests.service.api.conftest import BUNDLE_BYTES
from tests.service.api.problems import problem

pytestmark = pytest.mark.parametrize("artifact_url", ["folder", "memory"], indirect=True)

TAG = f'"{hashlib.sha256(BUNDLE_BYTES).hexdigest()}"'
SIZE = len(BUNDLE_BYTES)


@pytest.fixture
def url(jobs_of_each_status: dict[Status, str]) -> str:
    return f"/jobs/{jobs_of_each_status[Status.SUCCEEDED]}/checkpoint"


def test_the_whole(client: httpx.Client, url: str) -> None:
    whole = client.get(url)
    assert (whole.status_code, whole.content) == (200, BUNDLE_BYTES)
    assert whole.headers["content-type"] == "application/zip"
    assert whole.headers["etag"] == TAG
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(SIZE)
    assert ".zip" in whole.headers["content-disposition"]
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=1000-", 1000, SIZE - 1),
        ("bytes=-24", SIZE - 24, SIZE - 1),
        ("bytes=-99999", 0, SIZE - 1),
        ("bytes=1000-99999", 1000, SIZE - 1),
        ("BYTES=0-1", 0, 1),
    ],
)
def test_a_part(client: httpx.Client, url: str, wanted: str, first: int, last: int) -> None:
    part = client.get(url, headers={"Range": wanted})
    assert part.status_code == 206
    assert part.content == BUNDLE_BYTES[first : last + 1]
    assert part.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert part.headers["etag"] == TAG


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=99999-100000", "bytes=-0"])
def test_a_part_outside(client: httpx.Client, url: str, wanted: str) -> None:
    refused = client.get(url, headers={"Range": wanted})
    assert wanted in problem(refused, 416)["detail"]
    assert refused.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "wanted",
    ["lines=0-1", "bytes", "bytes=", "bytes=-", "bytes=x-y", "bytes=5-2", "bytes=0-1,4-5"],
)
def test_what_is_no_range_gets_the_whole(client: httpx.Client, url: str, wanted: str) -> None:
    whole = client.get(url, headers={"Range": wanted})
    assert (whole.status_code, whole.content) == (200, BUNDLE_BYTES)


def test_going_on_with_a_download(client: httpx.Client, url: str) -> None:
    rest = {"Range": "bytes=1000-"}
    same = client.get(url, headers={**rest, "If-Range": TAG})
    assert (same.status_code, same.content) == (206, BUNDLE_BYTES[1000:])
    for changed in ('"other"', f"W/{TAG}", "Sun, 06 Nov 1994 08:49:37 GMT"):
        other = client.get(url, headers={**rest, "If-Range": changed})
        assert (other.status_code, other.content) == (200, BUNDLE_BYTES)
    # a range outside of what is there now does not matter if that is another file
    beyond = {"Range": "bytes=99999-", "If-Range": '"other"'}
    assert client.get(url, headers=beyond).status_code == 200


def test_not_again(client: httpx.Client, url: str) -> None:
    for known in (TAG, f"W/{TAG}", f'"other", {TAG}', "*"):
        for method in ("GET", "HEAD"):
            unchanged = client.request(method, url, headers={"If-None-Match": known})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            assert unchanged.headers["etag"] == TAG
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_where_there_is_none(
    client: httpx.Client,
    settings: Settings,
    database: Database,
    jobs_of_each_status: dict[Status, str],
    url: str,
) -> None:
    for status, job_id in jobs_of_each_status.items():
        if status is not Status.SUCCEEDED:
            refused = client.get(f"/jobs/{job_id}/checkpoint")
            assert "no checkpoint" in problem(refused, 404)["detail"]
    blobs = open_blobs(settings, database)
    blobs.objects.delete([blobs.find(TAG.strip('"')).key])
    assert "is gone" in problem(client.get(url), 404)["detail"]


def test_one_of_an_earlier_version(
    client: httpx.Client,
    settings: Settings,
    database: Database,
    jobs_of_each_status: dict[Status, str],
    url: str,
) -> None:
    """It lies in the job's folder."""
    job_id = jobs_of_each_status[Status.SUCCEEDED]
    path = settings.jobs_dir / job_id / "1" / "model.tinyfit.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(BUNDLE_BYTES)
    with database.writing() as session:
        bundle = session.get(Artifact, (job_id, "bundle"))
        assert bundle is not None
        bundle.path, bundle.blob_sha256 = "1/model.tinyfit.zip", None
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, BUNDLE_BYTES[10:20])
    path.unlink()
    assert "is gone" in problem(client.get(url), 404)["detail"]


def test_while_the_store_does_not_answer(
    client: httpx.Client, app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(key: str) -> int:
        raise StoreUnavailableError("it does not answer", retry_after_seconds=7)

    monkeypatch.setattr(app.state.blobs.objects, "size", fail)
    refused = client.get(url)
    assert "does not answer" in problem(refused, 503)["detail"]
    assert refused.headers["retry-after"] == "7"
