"""API keys, other sites' pages, and rate limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from service.api import access
from service.api.app import create_app
from service.contract.status import Priority
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import cancel_job, get_job
from service.record.keys import create_key, revoke_key
from service.settings import Settings
from tests.service.api.problems import problem

OPEN = ("/", "/healthz", "/readyz", "/openapi.json", "/static/icon.svg")
MakeJob = Callable[..., Job]
CLOSED = ("/jobs", "/datasets", "/metrics", "/supernets", "/jobs/abc/events", "/nowhere")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time as the keys see it, which goes on when it is told to."""
    seconds = 1000.0

    def advance(by: float) -> None:
        nonlocal seconds
        seconds += by

    monkeypatch.setattr(access, "monotonic", lambda: seconds)
    return advance


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_without_keys_the_api_is_open(client: httpx.Client) -> None:
    assert client.get("/jobs").status_code == 200


def test_with_a_key_all_but_a_few_paths_need_one(client: httpx.Client, database: Database) -> None:
    _, text = create_key(database, "laptop")
    for path in OPEN:
        assert client.get(path).status_code == 200
    for path in CLOSED:
        refused = client.get(path)
        assert "tinyfit keys create" in problem(refused, 401)["detail"]
        assert refused.headers["www-authenticate"] == "Bearer"
    assert client.get("/jobs", headers=bearer(text)).status_code == 200
    assert client.get("/jobs", headers={"Authorization": f"bearer  {text}"}).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        *("", "Bearer", "Bearer ", "Bearer tf_wrong", "Basic {key}", "{key}", "Bearer {key}x"),
        *("Bearer {id}", "Bearer {sha256}", "Bearer \xff"),
    ],
)
def test_what_is_no_key(client: httpx.Client, database: Database, given: str) -> None:
    row, text = create_key(database, "laptop")
    value = given.format(key=text, id=row.id, sha256=row.sha256).encode("latin-1")
    problem(client.get("/jobs", headers=[(b"Authorization", value)]), 401)


def test_refused_requests_do_nothing(
    client: httpx.Client, database: Database, make_job: Callable[..., Job]
) -> None:
    url = f"/jobs/{make_job().id}"
    _, text = create_key(database, "laptop")
    problem(client.post(f"{url}/cancel"), 401)
    problem(client.delete(url), 401)
    assert client.get(url, headers=bearer(text)).json()["status"] == "queued"


def test_a_revoked_key_works_for_moments_only(
    client: httpx.Client, database: Database, clock: Callable[[float], None]
) -> None:
    _, text = create_key(database, "laptop")
    _, other = create_key(database, "other")
    assert client.get("/jobs", headers=bearer(text)).status_code == 200
    revoke_key(database, "laptop")
    clock(access.KEYS_KEPT_SECONDS)
    problem(client.get("/jobs", headers=bearer(text)), 401)
    assert client.get("/jobs", headers=bearer(other)).status_code == 200


def test_a_revoked_key_ends_its_streams_only(
    live_client: httpx.Client,
    database: Database,
    make_job: MakeJob,
    clock: Callable[[float], None],
) -> None:
    job_id = make_job().id
    url = f"/jobs/{job_id}/events"
    _, text = create_key(database, "laptop")
    _, other = create_key(database, "other")
    with (
        live_client.stream("GET", url, headers=bearer(text)) as of_revoked,
        live_client.stream("GET", url, headers=bearer(other)) as of_other,
    ):
        parts = of_revoked.iter_text()
        assert "event: status" in next(parts)
        revoke_key(database, "laptop")
        clock(access.KEYS_KEPT_SECONDS)
        assert "cancelled" not in "".join(parts)  # ends before the job does
        cancel_job(database, job_id)
        assert "cancelled" in "".join(of_other.iter_text())


def test_the_first_key_ends_streams_that_came_without(
    live_client: httpx.Client,
    database: Database,
    make_job: MakeJob,
    clock: Callable[[float], None],
) -> None:
    with live_client.stream("GET", f"/jobs/{make_job().id}/events") as response:
        parts = response.iter_text()
        assert "event: status" in next(parts)
        create_key(database, "laptop")
        clock(access.KEYS_KEPT_SECONDS)
        assert "event: status" not in "".join(parts)


def test_a_new_key_works_at_once(
    client: httpx.Client, database: Database, clock: Callable[[float], None]
) -> None:
    _, first = create_key(database, "first")
    assert client.get("/jobs", headers=bearer(first)).status_code == 200
    _, second = create_key(database, "second")
    clock(0.6)  # before what is known of the keys is old
    assert client.get("/jobs", headers=bearer(second)).status_code == 200


def test_revoking_the_last_key_does_not_open_the_api(
    client: httpx.Client, database: Database, clock: Callable[[float], None]
) -> None:
    create_key(database, "laptop")
    problem(client.get("/jobs"), 401)
    revoke_key(database, "laptop")
    clock(60)
    problem(client.get("/jobs"), 401)


def test_an_api_that_others_reach_is_closed_from_the_start(
    settings: Settings, database: Database
) -> None:
    with TestClient(create_app(settings, needs_key=True)) as client:
        problem(client.get("/jobs"), 401)


def test_keys_cost_no_query_for_each_request(
    app: FastAPI, client: httpx.Client, database: Database
) -> None:
    _, text = create_key(database, "laptop")
    statements: list[str] = []
    event.listen(
        app.state.database.engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]),
    )
    for _ in range(10):
        client.get("/supernets", headers=bearer(text))
        client.get("/supernets", headers=bearer("tf_wrong"))
    assert len([statement for statement in statements if "api_keys" in statement]) == 1


def test_what_is_known_of_the_keys_outlives_an_outage(
    client: httpx.Client,
    database: Database,
    clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, text = create_key(database, "laptop")
    assert client.get("/supernets", headers=bearer(text)).status_code == 200
    num_tries = 0

    def out(database: Database) -> None:
        nonlocal num_tries
        num_tries += 1
        raise OperationalError("SELECT", {}, ConnectionError("gone"))

    monkeypatch.setattr(access, "list_keys", out)
    clock(60)
    for _ in range(5):
        assert client.get("/supernets", headers=bearer(text)).status_code == 200
        problem(client.get("/supernets"), 401)
    assert num_tries == 1


def test_each_key_has_its_own_idempotency_keys(
    client: httpx.Client, database: Database, make_job: Callable[..., Job]
) -> None:
    body = {"dataset": make_job().dataset_id, "memory_limit": "24MB"}
    texts = [create_key(database, name)[1] for name in ("first", "second")]
    ids = [
        client.post("/jobs", json=body, headers={**bearer(text), "Idempotency-Key": "k"}).json()[
            "id"
        ]
        for text in (*texts, *texts)
    ]
    assert ids[0] != ids[1]
    assert ids[2:] == ids[:2]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]"),
        *("[::1]:8000", "192.168.1.7:80", "[2001:db8::1]:80", "testserver", "TestServer:1"),
    ],
)
def test_without_keys_the_server_goes_by_its_own_names(client: httpx.Client, host: str) -> None:
    assert client.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io:80"),
        *("evil.example@127.0.0.1", "evillocalhost", "localhost:80:80", "::1", "[", ":8000", ""),
    ],
)
def test_without_keys_no_other_name_leads_to_the_server(
    client: httpx.Client, make_job: MakeJob, host: str
) -> None:
    url = f"/jobs/{make_job().id}"
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for path in CLOSED:
        detail = problem(client.get(path, headers=headers), 421)["detail"]
        assert repr(host) in detail
        assert "tinyfit keys create" in detail
    problem(client.delete(url, headers=headers), 421)
    for path in OPEN:
        assert client.get(path, headers=headers).status_code == 200
    assert client.get(url).json()["status"] == "queued"


OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
    *({"Origin": origin} for origin in ("http://evil.example", "http://testserver:3000", "null")),
    *({"Origin": origin} for origin in ("http://testserver.evil.example", "http://[", "")),
]


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_without_keys_other_sites_change_nothing(
    client: httpx.Client, make_job: MakeJob, headers: dict[str, str]
) -> None:
    url = f"/jobs/{make_job().id}"
    form = {"file": ("a.zip", b"PK", "application/zip")}
    detail = problem(client.post("/datasets", files=form, headers=headers), 403)["detail"]
    assert all(repr(value) in detail for value in headers.values())
    problem(client.post(f"{url}/cancel", headers=headers), 403)
    problem(client.patch(url, json={"priority": "low"}, headers=headers), 403)
    problem(client.delete(url, headers=headers), 403)
    assert client.get(url, headers=headers).json()["status"] == "queued"
    assert client.head(url, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "http://localhost:8000", "Host": "localhost:8000"},
        {"Sec-Fetch-Site": "none"},
        # behind a proxy that asks by address
        {
            "Sec-Fetch-Site": "same-origin",
            "Origin": "https://tinyfit.example",
            "Host": "127.0.0.1:8000",
        },
    ],
)
def test_without_keys_programs_and_the_page_change_things(
    client: httpx.Client, make_job: MakeJob, headers: dict[str, str]
) -> None:
    assert client.post(f"/jobs/{make_job().id}/cancel", headers=headers).status_code == 202


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, *OTHER_SITES])
def test_with_a_key_any_name_and_any_page_will_do(
    client: httpx.Client, database: Database, make_job: MakeJob, headers: dict[str, str]
) -> None:
    url = f"/jobs/{make_job().id}/cancel"
    _, text = create_key(database, "laptop")
    assert client.post(url, headers=headers | bearer(text)).status_code == 202


@contextmanager
def limited(settings: Settings, **limits: int) -> Iterator[httpx.Client]:
    app = create_app(settings.model_copy(update=limits))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def refusal(response: httpx.Response) -> str:
    detail: str = problem(response, 429)["detail"]
    assert 1 <= int(response.headers["retry-after"]) <= 60
    return detail


class TestLimits:
    def test_requests(self, settings: Settings, database: Database) -> None:
        with limited(settings, max_requests_per_second=3) as client:
            answers = [client.get("/supernets") for _ in range(10)]
            statuses = [answer.status_code for answer in answers]
            assert 429 in statuses
            assert "more than 3 requests in one second" in refusal(answers[statuses.index(429)])
            assert statuses[:3] == [200] * 3
            assert client.get("/healthz").status_code == 200  # whoever asks

    def test_uploads_and_jobs_are_counted_apart(
        self, settings: Settings, database: Database
    ) -> None:
        with limited(settings, max_jobs_per_minute=2, max_uploads_per_minute=1) as client:
            for _ in range(2):
                problem(client.post("/jobs", json={}), 422)
            assert "2 POST /jobs in one minute" in refusal(client.post("/jobs", json={}))
            problem(client.post("/datasets"), 422)
            assert "1 POST /datasets in one minute" in refusal(client.post("/datasets"))
            assert client.get("/jobs").status_code == client.get("/datasets").status_code == 200

    def test_each_key_has_its_own(self, settings: Settings, database: Database) -> None:
        texts = [create_key(database, name)[1] for name in ("first", "second")]
        with limited(settings, max_jobs_per_minute=1) as client:
            for text in texts:
                problem(client.post("/jobs", json={}, headers=bearer(text)), 422)
            for text in texts:
                refusal(client.post("/jobs", json={}, headers=bearer(text)))

    def test_guessing_keys_is_limited(self, settings: Settings, database: Database) -> None:
        create_key(database, "laptop")
        with limited(settings, max_requests_per_second=3) as client:
            statuses = {
                client.get("/jobs", headers=bearer(f"tf_{number}")).status_code
                for number in range(10)
            }
        assert statuses == {401, 429}

    @pytest.mark.parametrize(("header", "status"), [("Host", 421), ("Origin", 403)])
    def test_other_sites_are_limited(
        self, settings: Settings, database: Database, header: str, status: int
    ) -> None:
        headers = {header: "evil.example"}
        with limited(settings, max_requests_per_second=3) as client:
            statuses = {client.post("/jobs", headers=headers).status_code for _ in range(10)}
        assert statuses == {status, 429}

    def test_zero_is_no_limit(self, settings: Settings, database: Database) -> None:
        with limited(
            settings, max_requests_per_second=0, max_jobs_per_minute=0, max_uploads_per_minute=0
        ) as client:
            assert {client.post("/jobs", json={}).status_code for _ in range(20)} == {422}


def test_a_job_is_its_keys(client: httpx.Client, database: Database, make_job: MakeJob) -> None:
    """So that the key's limit of running jobs holds."""
    dataset = make_job().dataset_id
    key, text = create_key(database, "laptop", max_running=1)
    body = {"dataset": dataset, "memory_limit": "24MB", "priority": "high"}
    response = client.post("/jobs", json=body, headers=bearer(text))
    assert (response.status_code, response.json()["priority"]) == (202, "high")
    job = get_job(database, response.json()["id"])
    assert (job.owner, job.priority) == (key.id, Priority.HIGH)
