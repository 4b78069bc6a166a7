"""Every GET of JSON is conditional, and HEAD works wherever GET does."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import httpx
import pytest

from service.record.db.models import Job

PATHS = (
    *("/jobs", "/jobs/{id}", "/jobs/{id}/trials", "/jobs/{id}/front"),
    *(
        "/jobs/{id}/attempts",
        "/datasets",
        "/datasets/d1",
        "/supernets",
        "/healthz",
        "/readyz",
        "/openapi.json",
    ),
)


@pytest.fixture(autouse=True)
def same_free_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """/readyz tells it, and other tests write to the same disk."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


@pytest.mark.parametrize("path", PATHS)
def test_unchanged_is_not_sent_again(
    client: httpx.Client, make_job: Callable[..., Job], path: str
) -> None:
    url = path.format(id=make_job().id)
    first = client.get(url)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, f"W/{tag}", f'"a", {tag}, "b"', "*"):
        unchanged = client.get(url, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
        assert "content-type" not in unchanged.headers
    changed = client.get(url, headers={"If-None-Match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)


@pytest.mark.parametrize("path", [*PATHS, "/", "/metrics", "/jobs/{id}/events"])
def test_head_answers_as_get_without_the_body(
    client: httpx.Client, make_job: Callable[..., Job], path: str
) -> None:
    url = path.format(id=make_job().id)
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    if path not in ("/metrics", "/jobs/{id}/events"):  # never the same twice; never ends
        get = client.get(url)
        for name in ("content-type", "content-length", "etag"):
            assert head.headers[name] == get.headers[name]


def test_a_change_changes_the_tag(client: httpx.Client, make_job: Callable[..., Job]) -> None:
    url = f"/jobs/{make_job().id}"
    tags = {path: client.get(path).headers["etag"] for path in (url, "/jobs")}
    client.post(f"{url}/pause")
    for path, tag in tags.items():
        changed = client.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag


def test_a_page_that_got_a_next_one_has_changed(
    client: httpx.Client, make_job: Callable[..., Job]
) -> None:
    older, _ = make_job(), make_job()
    page = client.get("/jobs?limit=1")
    assert "next" in page.links
    client.delete(f"/jobs/{older.id}")
    again = client.get("/jobs?limit=1", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.json()) == (200, page.json())
    assert "next" not in again.links


def test_errors_have_no_tag(client: httpx.Client) -> None:
    missing = client.get("/jobs/abc", headers={"If-None-Match": "*"})
    assert missing.status_code == 404
    assert "etag" not in missing.headers
    head = client.head("/jobs/abc")
    assert (head.status_code, head.content) == (404, b"")
