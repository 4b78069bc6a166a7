"""The client against a server that fails in every way; test_cli_jobs.py has a real one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from service.api.document.examples import FRONT
from service.client import (
    AnswerError,
    ChecksumError,
    Client,
    ClientError,
    ConnectionFailedError,
    ProblemError,
)
from service.client.http import Patience
from service.contract.requests import JobRequest
from service.contract.status import Status
from service.errors import ConflictError, DatasetError, InputError
from service.views.schemas import EventView, JobView
from tests.service.support.scripted_server import Answer, as_json, scripted

NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
BUNDLE = bytes(range(256)) * 1_000
SHA256 = hashlib.sha256(BUNDLE).hexdigest()
REQUEST = JobRequest(dataset="d1", memory_limit=24_000_000)


def job(status: str = "running", number: int = 1, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(JobView.model_fields) | {
        "id": f"{number:032x}",
        "name": "shapes",
        "status": status,
        "progress": 0.5,
        "attempt": 1,
        "created_at": NOW,
        "dataset": "d1",
        "memory_limit_bytes": 24_000_000,
        "supernet": "some",
        "method": "bias",
        "peak_meaning": "process",
        "priority": "normal",
        "settings": {},
    }
    return fields | changes


def finished(sha256: str = SHA256) -> dict[str, Any]:
    checkpoint = {"url": "/jobs/1/checkpoint", "bytes": len(BUNDLE), "sha256": sha256}
    bytes_and_shares = dict.fromkeys(
        (
            *("resolution", "predicted_peak_bytes", "measured_peak_bytes", "trials"),
            *("validation_accuracy", "test_accuracy", "head_only_test_accuracy"),
        ),
        1,
    )
    result = {
        "method": "bias",
        "subnet": {},
        "plan": {},
        "checkpoint": checkpoint,
        **bytes_and_shares,
    }
    return job("succeeded", result=result)


def event(number: int, kind: str = "log", **detail: Any) -> str:
    data = {"number": number, "kind": kind, "detail": detail, "attempt": 1, "created_at": NOW}
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def stream(*events: str, cut_after: int | None = None) -> Answer:
    return Answer(
        body="".join(events).encode(),
        headers={"Content-Type": "text/event-stream"},
        cut_after=cut_after,
    )


def problem(status: int, detail: str = "no luck", **headers: str) -> Answer:
    return as_json({"title": "Problem", "status": status, "detail": detail}, status, **headers)


def test_it_imports_no_torch() -> None:
    code = "import sys, service.client; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_problems_are_readable() -> None:
    answer = {
        "title": "Unprocessable Content",
        "detail": "memory limit 1 B is too small",
        "errors": [{"where": "memory_limit", "what": "too small", "got": 1}],
        "smallest_feasible_bytes": 5_000_000,
    }
    with scripted(as_json(answer, 422)) as server, Client(server.url) as client:
        with pytest.raises(ProblemError, match="is too small") as caught:
            client.submit(REQUEST)
        assert caught.value.status == 422
        assert caught.value.title == "Unprocessable Content"
        assert caught.value.errors[0]["where"] == "memory_limit"
        assert caught.value.members == {"smallest_feasible_bytes": 5_000_000}
        assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"<html>a router</html>"),
        as_json({"id": "half a job"}),
        Answer(status=302, headers={"Location": "http://elsewhere/"}),
    ],
)
def test_what_is_no_tinyfit_server(answer: Answer) -> None:
    with (
        scripted(answer) as server,
        Client(server.url) as client,
        pytest.raises(AnswerError, match="tinyfit server"),
    ):
        client.job("1")


def test_errors_that_are_no_problem_documents() -> None:
    answer = Answer(status=500, body=b"<html>oh</html>")
    with (
        scripted(answer) as server,
        Client(server.url) as client,
        pytest.raises(ProblemError, match="500 Internal Server Error"),
    ):
        client.job("1")


def test_nobody_there() -> None:
    with scripted() as server:
        url = server.url
    started = time.monotonic()
    with (
        Client(url, patience_seconds=0.5) as client,
        pytest.raises(ConnectionFailedError, match=r"can't reach .* refused.*tinyfit serve"),
    ):
        client.job("1")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://a:b:c"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="not the address"):
        Client(url)


def test_keys() -> None:
    with scripted(as_json(job())) as server, Client(server.url + "/", "tf_x") as client:
        client.job("1")
    assert server.asked[0].headers["authorization"] == "Bearer tf_x"
    with pytest.raises(InputError, match="characters that no key has"):
        Client(server.url, "tf_x\n")


def test_an_id_stays_a_part_of_the_path() -> None:
    with scripted(as_json(job())) as server, Client(server.url) as client:
        client.job("../datasets?x=1")
    assert server.asked[0].path == "/jobs/..%2Fdatasets%3Fx%3D1"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with scripted(problem(status), as_json(job())) as server, Client(server.url) as client:
        assert client.job("1").status is Status.RUNNING


def test_a_broken_connection_is_tried_again() -> None:
    cut = Answer(body=json.dumps(job()).encode(), cut_after=20)
    with scripted(cut, as_json(job())) as server, Client(server.url) as client:
        client.job("1")


def test_the_server_says_when_to_ask_again() -> None:
    with (
        scripted(problem(429, Retry_After="1"), as_json(job())) as server,
        Client(server.url) as client,
    ):
        started = time.monotonic()
        client.job("1")
        assert 1 <= time.monotonic() - started < 3


def test_patience_begins_with_the_first_failure() -> None:
    """However long there was nothing to be impatient about."""
    patience = Patience(0.5)
    time.sleep(0.6)
    patience.wait(ConnectionFailedError("gone", is_undone=True))  # raises nothing


def test_no_waiting_beyond_the_patience() -> None:
    late = format_datetime(datetime(2100, 1, 1, tzinfo=UTC), usegmt=True)
    for value in ("3600", late):
        answer = problem(503, "the database is out", Retry_After=value)
        with scripted(answer) as server, Client(server.url) as client:
            with pytest.raises(ProblemError, match="the database is out") as caught:
                client.job("1")
            assert caught.value.retry_after is not None
            assert caught.value.retry_after >= 3600


def test_a_job_is_submitted_once_however_often_it_is_sent() -> None:
    cut = Answer(status=202, body=b"{}", cut_after=1)
    with (
        scripted(cut, problem(503), as_json(job(), 202)) as server,
        Client(server.url) as client,
    ):
        client.submit(REQUEST)
    keys = {asked.headers["idempotency-key"] for asked in server.asked}
    assert len(keys) == 1
    assert json.loads(server.asked[0].body) == {"dataset": "d1", "memory_limit": 24_000_000}
    with (
        scripted(as_json(job(), 202), as_json(job(), 202)) as server,
        Client(server.url) as client,
    ):
        client.submit(REQUEST)
        client.submit(REQUEST, idempotency_key="mine")
    first, second = (asked.headers["idempotency-key"] for asked in server.asked)
    assert first not in keys
    assert second == "mine"


def test_what_would_do_harm_twice_is_not_tried_again() -> None:
    cut = as_json(job(), 202)
    cut = Answer(status=202, body=cut.body, cut_after=5)
    with (
        scripted(cut, problem(503), problem(429), as_json(job("queued"), 202)) as server,
        Client(server.url) as client,
    ):
        with pytest.raises(ConnectionFailedError, match="lost the connection"):
            client.retry("1")
        with pytest.raises(ProblemError):
            client.delete("1")
        assert client.retry("1").status is Status.QUEUED  # 429: nothing had been done


def test_lists_go_from_page_to_page() -> None:
    link = '</jobs?limit=1000&cursor=a%2Bb%3D>; rel="next"'
    with (
        scripted(as_json([job(number=1), job(number=2)], Link=link), as_json([job(number=3)])) as (
            server
        ),
        Client(server.url) as client,
    ):
        found = [int(view.id) for view in client.jobs(status=Status.RUNNING, dataset="d1")]
    assert found == [1, 2, 3]
    assert server.asked[0].path == "/jobs?limit=1000&status=running&dataset=d1"
    assert server.asked[1].path == "/jobs?limit=1000&cursor=a%2Bb%3D&status=running&dataset=d1"


def test_the_front_of_a_job() -> None:
    with scripted(as_json(FRONT)) as server, Client(server.url) as client:
        found = client.front("a/b")
    assert found.model_dump(mode="json") == FRONT
    assert found.points[-1].is_chosen
    assert [asked.path for asked in server.asked] == ["/jobs/a%2Fb/front"]


def test_events_go_on_where_the_stream_broke_off() -> None:
    first = stream(event(1), ": alive\n\n", event(2), event(3))
    cut = len(first.body) - 10
    view = f"event: job\ndata: {json.dumps(job())}\n\n"
    with (
        scripted(
            stream(event(1), ": alive\n\n", event(2), event(3), cut_after=cut),
            problem(503),
            stream(event(3), "event: later\ndata: {}\n\n", view, event(4)),
            as_json(job("succeeded")),
        ) as server,
        Client(server.url) as client,
    ):
        found = list(client.follow("1"))
    assert [item.number for item in found if isinstance(item, EventView)] == [1, 2, 3, 4]
    assert [item.progress for item in found if isinstance(item, JobView)] == [0.5]
    last_ids = [asked.headers.get("last-event-id") for asked in server.asked]
    assert last_ids == [None, "2", "2", None]


def test_a_stream_that_ends_early_is_opened_again() -> None:
    with (
        scripted(
            stream(event(1)), as_json(job()), stream(event(2)), as_json(job("cancelled"))
        ) as server,
        Client(server.url) as client,
    ):
        assert [found.number for found in client.events("1")] == [1, 2]


def test_events_of_no_job_are_a_problem() -> None:
    with (
        scripted(problem(404, "there is no job '1'")) as server,
        Client(server.url) as client,
        pytest.raises(ProblemError, match="no job '1'"),
    ):
        list(client.events("1"))


def test_a_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    target = tmp_path / "model.zip"
    rest = Answer(
        status=206,
        body=BUNDLE[100_000:],
        headers={"Content-Range": f"bytes 100000-{len(BUNDLE) - 1}/{len(BUNDLE)}"},
    )
    seen: list[int] = []
    with (
        scripted(as_json(finished()), Answer(body=BUNDLE, cut_after=100_000), rest) as server,
        Client(server.url) as client,
    ):
        client.download("1", target, lambda done, total: seen.append(done))
    assert target.read_bytes() == BUNDLE
    assert list(tmp_path.iterdir()) == [target]
    assert server.asked[2].headers["range"] == "bytes=100000-"
    assert server.asked[2].headers["if-range"] == f'"{SHA256}"'
    assert seen == sorted(seen)
    assert seen[-1] == len(BUNDLE)


def test_a_download_goes_on_after_a_kill_and_begins_anew_where_it_must(tmp_path: Path) -> None:
    target = tmp_path / "model.zip"
    target.write_bytes(b"an older one")
    with (
        scripted(as_json(finished()), Answer(body=BUNDLE, cut_after=70_000)) as server,
        Client(server.url, patience_seconds=0) as client,
        pytest.raises(ClientError, match="lost the connection"),
    ):
        client.download("1", target)
    assert target.read_bytes() == b"an older one"
    with (
        scripted(as_json(finished()), Answer(body=BUNDLE)) as server,
        Client(server.url) as client,
    ):
        client.download("1", target)  # the server does not know ranges
    assert server.asked[1].headers["range"] == "bytes=70000-"
    assert target.read_bytes() == BUNDLE
    assert list(tmp_path.iterdir()) == [target]


def test_a_damaged_download_is_not_kept(tmp_path: Path) -> None:
    damaged = b"\xff" + BUNDLE[1:]
    with (
        scripted(as_json(finished()), Answer(body=damaged)) as server,
        Client(server.url) as client,
        pytest.raises(ChecksumError, match=SHA256),
    ):
        client.download("1", tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []


def test_no_download_without_a_checkpoint(tmp_path: Path) -> None:
    with (
        scripted(as_json(job())) as server,
        Client(server.url) as client,
        pytest.raises(ConflictError, match="is running and has no checkpoint"),
    ):
        client.download("1", tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []


def _dataset(name: str) -> dict[str, Any]:
    fields = {"id": "d1", "name": name, "classes": ["a"], "counts": {"train": {"a": 1}}}
    return fields | {"num_images": 1, "bytes": 1, "report": None, "created_at": NOW}


def test_an_upload_is_sent_again_whole(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("cat/1.png", "cat/.DS_Store", "dog/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 20_000)
    seen: list[tuple[int, int]] = []
    with (
        scripted(problem(503), as_json(_dataset("photos"), 201)) as server,
        Client(server.url) as client,
    ):
        client.upload(folder, on_progress=lambda done, total: seen.append((done, total)))
    first, second = (asked.body.split(b"\r\n", 1)[1] for asked in server.asked)
    zips = [body[body.index(b"PK\x03\x04") : body.rindex(b"\r\n--")] for body in (first, second)]
    assert zips[0] == zips[1]
    assert b'name="name"\r\n\r\nphotos\r\n' in second
    assert b".DS_Store" not in second
    assert seen[-1] == (len(zips[0]), len(zips[0]))


def test_a_folder_whose_name_is_not_utf_8_is_uploaded(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").touch()
    with scripted(as_json(_dataset("photos"), 201)) as server, Client(server.url) as client:
        client.upload(folder)
    assert 'name="name"\r\n\r\ncaf\ufffd\r\n'.encode() in server.asked[0].body


def test_what_can_not_be_uploaded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no zip")
    (tmp_path / "empty").mkdir()
    with Client("http://127.0.0.1:9") as client:
        for name, words in (
            ("notes.txt", "is no zip or tar"),
            ("empty", "no images found"),
            ("nowhere", "does not exist"),
        ):
            with pytest.raises(DatasetError, match=words):
                client.upload(tmp_path / name)
