"""A job's end is told: signed, once, and again where nobody takes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import SecretStr

from service.api.app import create_app
from service.contract.requests import JobRequest
from service.record.claims import Claim, fail_job
from service.record.db.database import Database
from service.record.db.models import Job, Webhook
from service.record.jobs import cancel_job, create_job, delete_job, retry_job
from service.record.webhooks import RETRY_SECONDS, find_webhook, take_due_webhook
from service.settings import Settings
from service.webhooks.sender import WebhookSender, deliver_one
from tests.service.support.processes import wait_for

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

KEY = b"a key of at least 24 bytes"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@dataclass
class Receiver:
    """What has come, and what is answered."""

    status: int = 204
    location: str = ""
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.status)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.end_headers()

        def log_message(self, *ignored: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    more = {"webhook_secret": SecretStr(SECRET), "webhook_allow_private": True}
    return settings.model_copy(update=more)


@pytest.fixture
def ended(
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
    receiver: Receiver,
) -> str:
    """A job with a webhook that has failed."""
    first = make_job()
    cancel_job(database, first.id)
    request = JobRequest(dataset=first.dataset_id, memory_limit=1000, webhook=receiver.url)
    job_id = create_job(database, request)[0].id
    assert take_due_webhook(database) is None  # it has not ended
    fail_job(database, claim(), "out of luck")
    return job_id


def make_due(database: Database, job_id: str) -> float:
    """The webhook is due now; in how many seconds it would have been."""
    with database.writing() as session:
        webhook = session.get(Webhook, job_id)
        assert webhook is not None
        due_at, webhook.due_at = webhook.due_at, 0.0
        return due_at


def test_an_end_is_told_once(
    settings: Settings, database: Database, ended: str, receiver: Receiver
) -> None:
    assert deliver_one(settings, database)
    assert not deliver_one(settings, database)
    ((headers, body),) = receiver.came
    told = json.loads(body)
    assert told["type"] == "job.ended"
    assert (told["data"]["id"], told["data"]["status"]) == (ended, "failed")
    assert told["timestamp"] == told["data"]["finished_at"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{signature}"
    webhook = find_webhook(database, ended)
    assert webhook is not None
    assert webhook.delivered_at is not None
    assert webhook.error is None


def test_one_that_is_retried_ends_again(
    settings: Settings,
    database: Database,
    ended: str,
    receiver: Receiver,
    claim: Callable[[], Claim],
) -> None:
    assert deliver_one(settings, database)
    retry_job(database, ended)
    assert not deliver_one(settings, database)
    fail_job(database, claim(), "again")
    assert deliver_one(settings, database)
    first, second = (headers["webhook-id"] for headers, _ in receiver.came)
    assert first != second


def test_what_is_not_taken_is_tried_again_and_then_given_up(
    settings: Settings, database: Database, ended: str, receiver: Receiver
) -> None:
    receiver.status = 500
    due_at = 0.0
    for _ in RETRY_SECONDS:
        assert deliver_one(settings, database)
        assert not deliver_one(settings, database)  # not before its time
        later = make_due(database, ended)
        assert later > due_at
        due_at = later
    webhook = find_webhook(database, ended)
    assert webhook is not None
    assert (webhook.error, webhook.num_attempts) == ("it answers 500", len(RETRY_SECONDS))
    assert deliver_one(settings, database)
    make_due(database, ended)
    assert not deliver_one(settings, database)
    assert len(receiver.came) == len(RETRY_SECONDS) + 1
    assert len({headers["webhook-id"] for headers, _ in receiver.came}) == 1


def test_it_is_taken_in_the_end(
    settings: Settings, database: Database, ended: str, receiver: Receiver
) -> None:
    receiver.status = 503
    assert deliver_one(settings, database)
    receiver.status = 200
    make_due(database, ended)
    assert deliver_one(settings, database)
    webhook = find_webhook(database, ended)
    assert webhook is not None
    assert (webhook.error, webhook.num_attempts) == (None, 0)
    assert webhook.delivered_at is not None


def test_redirects_are_not_followed(
    settings: Settings, database: Database, ended: str, receiver: Receiver
) -> None:
    receiver.status, receiver.location = 307, receiver.url
    assert deliver_one(settings, database)
    assert len(receiver.came) == 1
    webhook = find_webhook(database, ended)
    assert webhook is not None
    assert webhook.error == "it answers 307"


def test_a_name_that_turns_out_private_is_not_gone_to(
    settings: Settings,
    database: Database,
    ended: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was allowed when the job was made, say, or its name has another address by now."""
    careful = settings.model_copy(update={"webhook_allow_private": False})
    assert deliver_one(careful, database)
    assert receiver.came == []
    webhook = find_webhook(database, ended)
    assert webhook is not None
    assert webhook.error is not None
    assert "is a private address" in webhook.error


def test_nobody_is_there(settings: Settings, database: Database, ended: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with database.writing() as session:
            webhook = session.get(Webhook, ended)
            assert webhook is not None
            webhook.url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        assert deliver_one(settings, database)
    found = find_webhook(database, ended)
    assert found is not None
    assert (found.error or "").startswith("ConnectError")


def test_one_that_is_being_sent_is_nobody_elses(database: Database, ended: str) -> None:
    assert take_due_webhook(database) is not None
    assert take_due_webhook(database) is None
    delete_job(database, ended)
    assert find_webhook(database, ended) is None


def test_the_thread_of_a_worker(
    settings: Settings, database: Database, ended: str, receiver: Receiver
) -> None:
    stop = threading.Event()
    sender = WebhookSender(settings, database, stop)
    sender.start()
    wait_for(lambda: len(receiver.came) == 1, seconds=15)
    stop.set()
    sender.join(5)
    assert not sender.is_alive()


def test_over_http(
    settings: Settings, database: Database, make_job: Callable[..., Job], receiver: Receiver
) -> None:
    from fastapi.testclient import TestClient

    dataset = make_job().dataset_id
    body = {"dataset": dataset, "memory_limit": "24MB", "webhook": receiver.url}
    here = settings.model_copy(update={"host": "testserver"})
    with TestClient(create_app(here)) as client:
        job_id = client.post("/jobs", json=body).json()["id"]
        found = client.get(f"/jobs/{job_id}/webhook").json()
        assert (found["url"], found["delivered_at"]) == (receiver.url, None)
        other = client.post("/jobs", json=body | {"webhook": None}).json()["id"]
        assert client.get(f"/jobs/{other}/webhook").status_code == 404
    for update, reason in (
        ({"webhook_secret": None}, "TINYFIT_WEBHOOK_SECRET is not set"),
        ({"webhook_allow_private": False}, "'127.0.0.1' is a private address"),
    ):
        with TestClient(create_app(here.model_copy(update=update))) as client:
            refused = client.post("/jobs", json=body)
            assert refused.status_code == 422
            assert reason in refused.json()["detail"]
