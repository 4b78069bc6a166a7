"""Following a job: server-sent events, and JSON for who polls."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx_sse import connect_sse
from sqlalchemy.exc import OperationalError

from service.api.app import create_app
from service.contract.status import Status
from service.record.claims import Claim, add_log, set_progress
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import cancel_job
from service.settings import Settings
from tests.service.api.live import served
from tests.service.api.problems import problem


@dataclass
class Message:
    kind: str
    number: str
    data: dict[str, Any]


def follow(
    client: httpx.Client, url: str, headers: dict[str, str] | None = None
) -> Iterator[Message]:
    with connect_sse(client, "GET", url, headers=headers or {}) as source:
        assert source.response.status_code == 200
        assert source.response.headers["cache-control"] == "no-cache"
        for found in source.iter_sse():
            # httpx-sse keeps the last id, as browsers do
            yield Message(found.event, found.id, json.loads(found.data))


def test_a_finished_job_is_told_from_begin_to_end(
    client: httpx.Client,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
    deliver: Callable[[Claim], None],
) -> None:
    url = f"/jobs/{make_job().id}"
    deliver(claim())
    *events, last = follow(client, f"{url}/events")
    assert [event.kind for event in events] == ["status"] * 3
    assert [event.number for event in events] == ["1", "2", "3"]
    assert [event.data["detail"]["status"] for event in events] == [
        *("queued", "running", "succeeded")
    ]
    assert (
        events[0].data
        == client.get(f"{url}/events", headers={"Accept": "application/json"}).json()[0]
    )
    assert (last.kind, last.data) == ("job", client.get(url).json())


def test_only_events_have_an_id(client: httpx.Client, make_job: Callable[..., Job]) -> None:
    url = f"/jobs/{make_job().id}"
    client.post(f"{url}/cancel")
    blocks = client.get(f"{url}/events").text.strip().split("\n\n")
    assert [("id: " in block, "event: job" in block) for block in blocks] == [
        *((True, False), (True, False), (False, True))
    ]


def test_what_happens_comes_as_it_happens(
    live_client: httpx.Client,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> None:
    url = f"/jobs/{make_job().id}"
    messages = follow(live_client, f"{url}/events")
    first, view = next(messages), next(messages)
    assert (first.kind, view.kind, view.data["status"]) == ("status", "job", "queued")
    held = claim()
    running, view = next(messages), next(messages)
    assert running.data["detail"]["status"] == "running"
    assert view.data["attempt"] == 1
    set_progress(database, held, stage="adapt", progress=0.1, seconds_left=None)
    stage, view = next(messages), next(messages)
    assert (stage.kind, stage.data["detail"]) == ("stage", {"stage": "adapt"})
    set_progress(database, held, stage="adapt", progress=0.2, seconds_left=None)
    view = next(messages)  # progress is no event
    assert (view.kind, view.data["progress"]) == ("job", 0.2)
    add_log(database, held, "two\nlines")
    log = next(messages)
    assert log.data["detail"] == {"message": "two\nlines"}


@pytest.mark.parametrize("how", ["after", "last-event-id", "both"])
def test_a_stream_goes_on_where_another_ended(
    client: httpx.Client,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
    how: str,
) -> None:
    url = f"/jobs/{make_job().id}/events"
    held = claim()
    for number in range(600):  # more than one look brings
        add_log(database, held, str(number))
    cancel_job(database, held.job_id)  # asks its worker; the job runs on
    with database.writing() as session:
        job = session.get(Job, held.job_id)
        assert job is not None
        job.status = Status.CANCELLED
    query = {"after": "?after=3", "last-event-id": "", "both": "?after=1"}[how]
    headers = {} if how == "after" else {"Last-Event-ID": "3"}
    *events, last = follow(client, url + query, headers)
    assert [int(event.number) for event in events] == list(range(4, 604))
    assert last.kind == "job"


def test_polling(
    client: httpx.Client,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> None:
    url = f"/jobs/{make_job().id}/events"
    held = claim()
    for number in range(10):
        add_log(database, held, str(number))

    def numbers(query: str) -> list[int]:
        response = client.get(f"{url}?{query}", headers={"Accept": "application/json"})
        assert response.headers["vary"] == "Accept"
        assert "etag" in response.headers
        return [event["number"] for event in response.json()]

    assert numbers("") == list(range(1, 13))
    assert numbers("after=10") == [11, 12]
    assert numbers("after=2&limit=3") == [3, 4, 5]
    assert numbers("after=12") == []


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("application/json, */*", True),
        ("application/json;q=0.5, text/event-stream;q=0.1", True),
        ("application/*", True),
        ("text/event-stream", False),
        ("*/*", False),
        ("", False),
        ("text/html", False),
        ("application/json;q=0", False),
        ("application/json;q=0.5, text/event-stream", False),
        ("application/json;q=x", False),
    ],
)
def test_who_gets_json(
    client: httpx.Client, make_job: Callable[..., Job], accept: str, is_json: bool
) -> None:
    url = f"/jobs/{make_job().id}"
    client.post(f"{url}/cancel")
    response = client.get(f"{url}/events", headers={"Accept": accept})
    expected = "application/json" if is_json else "text/event-stream; charset=utf-8"
    assert response.headers["content-type"] == expected


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_errors_come_before_the_stream(
    client: httpx.Client, make_job: Callable[..., Job], accept: str
) -> None:
    headers = {"Accept": accept}
    assert "'abc'" in problem(client.get("/jobs/abc/events", headers=headers), 404)["detail"]
    url = f"/jobs/{make_job().id}/events"
    problem(client.get(f"{url}?after=-1", headers=headers), 422)
    problem(client.get(f"{url}?after={2**31}", headers=headers), 422)
    problem(client.get(url, headers={**headers, "Last-Event-ID": "x"}), 422)


def test_a_deleted_job_ends_its_stream(
    live_client: httpx.Client, make_job: Callable[..., Job]
) -> None:
    url = f"/jobs/{make_job().id}"
    messages = follow(live_client, f"{url}/events")
    next(messages), next(messages)
    live_client.delete(url)
    assert list(messages) == []


def test_streams_are_counted_and_freed(
    settings: Settings, database: Database, make_job: Callable[..., Job]
) -> None:
    app = create_app(settings.model_copy(update={"max_event_streams": 2}))
    url = f"/jobs/{make_job().id}/events"
    with served(app) as address, httpx.Client(base_url=address) as client:
        open_ones = [follow(client, url) for _ in range(2)]
        for messages in open_ones:
            next(messages)
        refused = client.get(url)
        assert "2 clients follow" in problem(refused, 503)["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert client.get(url, headers={"Accept": "application/json"}).status_code == 200
        open_ones.pop().close()  # the client goes away
        deadline = time.monotonic() + 5
        while app.state.streams.num_open > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        next(follow(client, url))


def test_a_stream_outlives_an_outage(
    live_client: httpx.Client,
    app: FastAPI,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"/jobs/{make_job().id}/events"
    messages = follow(live_client, url)
    next(messages), next(messages)
    is_tried = threading.Event()

    def out(*arguments: object) -> None:
        is_tried.set()
        raise OperationalError("SELECT", {}, ConnectionError("gone"))

    with monkeypatch.context() as patch:
        patch.setattr("service.api.routes.events.find_job", out)
        assert is_tried.wait(5)
        refused = live_client.get(url)
        assert "database does not answer" in problem(refused, 503)["detail"]
    claim()
    assert next(messages).data["detail"]["status"] == "running"


def test_a_quiet_stream_holds_no_connection_and_no_thread(
    app: FastAPI, make_job: Callable[..., Job], settings: Settings
) -> None:
    app = create_app(settings.model_copy(update={"event_poll_seconds": 60.0}))
    url = f"/jobs/{make_job().id}/events"
    with served(app) as address, httpx.Client(base_url=address) as client:
        streams = [follow(client, url) for _ in range(5)]
        for messages in streams:
            next(messages), next(messages)
        assert app.state.database.engine.pool.checkedout() == 0
        # and what it waits for so long does not hold the server up as it ends


def test_comments_keep_a_quiet_stream_alive(
    live_client: httpx.Client,
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.api.http.streams._KEEP_ALIVE_SECONDS", 0.05)
    with live_client.stream("GET", f"/jobs/{make_job().id}/events") as response:
        text = ""
        for part in response.iter_text():
            text += part
            if text.count(": ping\n\n") == 2:
                break


def test_streams_end_when_the_application_does(app: FastAPI, make_job: Callable[..., Job]) -> None:
    with TestClient(app) as client:
        assert client.get(f"/jobs/{make_job().id}").status_code == 200
    assert app.state.streams.num_open == 0
