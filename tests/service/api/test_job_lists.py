"""The list of jobs: pages and filters."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from service.api.http.pages import write_cursor
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import cancel_job
from tests.service.api.problems import problem

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


def walk(client: httpx.Client, url: str | None) -> list[list[str]]:
    """The ids on each page."""
    pages = []
    while url is not None:
        page = client.get(url)
        assert page.status_code == 200
        pages.append([job["id"] for job in page.json()])
        url = page.links.get("next", {}).get("url")
    return pages


def test_pages_hold_every_job_once_newest_first(
    client: httpx.Client, make_job: Callable[..., Job]
) -> None:
    newest_first = [make_job().id for _ in range(7)][::-1]
    pages = walk(client, "/jobs?limit=3")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [job_id for page in pages for job_id in page] == newest_first
    assert walk(client, "/jobs?limit=7") == [newest_first]  # no link to an empty page
    assert walk(client, "/jobs") == [newest_first]


def test_a_page_stays_where_it_is_while_jobs_are_made_and_deleted(
    client: httpx.Client, make_job: Callable[..., Job]
) -> None:
    oldest_first = [make_job().id for _ in range(4)]
    first = client.get("/jobs?limit=2")
    make_job()
    client.delete(f"/jobs/{oldest_first[2]}")  # the row that the cursor names
    following = client.get(first.links["next"]["url"]).json()
    assert [job["id"] for job in following] == oldest_first[1::-1]


def test_filters_hold_on_every_page(
    client: httpx.Client, database: Database, make_job: Callable[..., Job]
) -> None:
    wanted = []
    for number in range(9):
        job = make_job(dataset=f"d{number % 3}")
        if number % 2 == 0:
            cancel_job(database, job.id)
            if number % 3 == 0:
                wanted.append(job.id)
    pages = walk(client, "/jobs?status=cancelled&dataset=d0&limit=1")
    assert pages == [[job_id] for job_id in reversed(wanted)]
    assert len(client.get("/jobs?status=cancelled").json()) == 5
    assert len(client.get("/jobs?dataset=d1").json()) == 3
    assert client.get("/jobs?dataset=unknown").json() == []


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "status=lost", "dataset=%00", "cursor="),
        *("cursor=abc", "cursor=%00", "cursor=" + "A" * 301),
        "cursor=" + write_cursor((float("nan"), "a")),
        "cursor=" + write_cursor((1e400, "a")),
        "cursor=" + write_cursor((1.0, "\0")),
    ],
)
def test_bad_queries(client: httpx.Client, query: str) -> None:
    name = query.partition("=")[0]
    assert f"query.{name}" in problem(client.get(f"/jobs?{query}"), 422)["detail"]
