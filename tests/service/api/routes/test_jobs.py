"""Making jobs and looking at them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service.record.claims import Claim, add_trial, set_progress
from service.record.db.database import Database, now
from service.record.db.models import Job, Trial
from service.views.schemas import JobView
from tests.service.api.problems import problem

CANDIDATE = {"subnet": {}, "resolution": 64, "plan": {}, "lite_residual": {}}


@pytest.fixture
def dataset_id(make_job: Callable[..., Job], client: httpx.Client) -> str:
    """Of a dataset without jobs."""
    job = make_job()
    assert client.delete(f"/jobs/{job.id}").status_code == 204
    return job.dataset_id


def trial(job_id: str, number: int) -> Trial:
    return Trial(
        job_id=job_id,
        number=number,
        candidate=CANDIDATE,
        predicted_peak_bytes=20_000_000,
        lean_peak_bytes=20_000_000,
        accuracy=0.5,
        seconds=1.0,
        attempt=1,
        finished_at=now(),
    )


def test_a_job_from_post_to_result(
    client: httpx.Client,
    database: Database,
    dataset_id: str,
    claim: Callable[[], Claim],
    deliver: Callable[[Claim], None],
) -> None:
    body = {"dataset": dataset_id, "memory_limit": "24MB", "settings": {"trials": 3, "seed": 7}}
    response = client.post("/jobs", json=body)
    assert response.status_code == 202
    assert "idempotent-replayed" not in response.headers
    job = response.json()
    url = f"/jobs/{job['id']}"
    assert response.headers["location"] == url
    assert job.keys() == JobView.model_fields.keys()
    assert (job["status"], job["progress"]) == ("queued", 0.0)
    assert job["memory_limit_bytes"] == 24_000_000
    assert job["method"] == "auto"
    assert (job["settings"]["trials"], job["settings"]["seed"]) == (3, 7)

    held = claim()
    set_progress(database, held, stage="search", progress=0.25, seconds_left=60)
    running = client.get(url).json()
    assert (running["status"], running["stage"]) == ("running", "search")
    assert running["progress"] == 0.25
    assert running["estimated_finish_at"] is not None

    deliver(held)
    done = client.get(url).json()
    assert done["status"] == "succeeded"
    assert done["result"]["test_accuracy"] == 0.8
    assert (done["method"], done["result"]["method"]) == ("auto", "bias")
    assert done["result"]["checkpoint"]["url"] == f"{url}/checkpoint"
    assert client.get("/jobs").json() == [done]


def test_the_settings_of_the_search(client: httpx.Client, dataset_id: str) -> None:
    def settings(**asked: object) -> dict[str, Any]:
        body = {"dataset": dataset_id, "memory_limit": "24MB", "settings": asked}
        response = client.post("/jobs", json=body)
        assert response.status_code == 202, response.text
        found: dict[str, Any] = response.json()["settings"]
        return found

    usual = settings()
    assert (usual["trials"], usual["patience"], usual["race"]) == (16, 64, True)
    assert (usual["sampler"], usual["time_limit_seconds"], usual["mac_limit"]) == (
        *("predictor", None, None),
    )
    timed = settings(time_limit_seconds="10m", mac_limit="20M", sampler="tpe")
    assert (timed["trials"], timed["time_limit_seconds"]) == (10_000, 600)
    assert (timed["mac_limit"], timed["sampler"]) == (20_000_000, "tpe")
    assert settings(time_limit_seconds=90, trials=5)["trials"] == 5
    assert settings(time_limit_seconds=None)["trials"] == 16


def test_trials_and_attempts(
    client: httpx.Client,
    database: Database,
    make_job: Callable[..., Job],
    claim: Callable[[], Claim],
) -> None:
    url = f"/jobs/{make_job().id}"
    assert client.get(f"{url}/trials").json() == client.get(f"{url}/attempts").json() == []
    held = claim()
    for number in range(4):
        add_trial(database, held, trial(held.job_id, number))

    def numbers(query: str) -> list[int]:
        return [found["number"] for found in client.get(f"{url}/trials?{query}").json()]

    assert numbers("") == [0, 1, 2, 3]
    assert numbers("after=0") == [1, 2, 3]
    assert numbers("after=-1&limit=2") == [0, 1]
    assert numbers("after=3") == []
    for query in ("after=-2", f"after={2**31}", "limit=0"):  # numbers that no row can have
        problem(client.get(f"{url}/trials?{query}"), 422)
    (attempt,) = client.get(f"{url}/attempts").json()
    assert (attempt["number"], attempt["outcome"]) == (1, None)


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


def test_an_infeasible_mac_limit_names_the_smallest_feasible_one(
    client: httpx.Client, dataset_id: str
) -> None:
    def post(limit: object, mac_limit: object) -> httpx.Response:
        settings = {"mac_limit": mac_limit}
        body = {"dataset": dataset_id, "memory_limit": limit, "settings": settings}
        return client.post("/jobs", json=body)

    refused = problem(post("24MB", "100k"), 422)
    smallest = refused["smallest_feasible_macs"]
    assert "smallest_feasible_bytes" not in refused
    assert (
        "mac_limit 100.0k (100000) is too small: the smallest feasible one is"
        in (refused["detail"])
    )
    assert f"({smallest})" in refused["detail"]
    assert "resolution 48, takes" in refused["detail"]
    problem(post("24MB", smallest - 1), 422)
    assert post("24MB", smallest).status_code == 202

    both = problem(post("100KB", "100k"), 422)
    least_bytes, fewest = both["smallest_feasible_bytes"], both["smallest_feasible_macs"]
    assert str(least_bytes) in both["detail"]
    assert post(least_bytes, fewest).status_code == 202
    limit_alone = problem(post(least_bytes - 1, fewest), 422)
    assert "smallest_feasible_macs" not in limit_alone


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory_limit": "24 parsecs"}, "24 parsecs"),
        ({"memory_limit": None}, "memory_limit"),
        ({"memory_limit": 0}, "at least 1 byte"),
        ({"method": "magic"}, "'norm+head' or 'full', but got 'magic'"),
        ({"supernet": "/etc/passwd"}, "unknown supernet '/etc/passwd'"),
        ({"surprise": 1}, "surprise"),
        ({"settings": {"trials": 0}}, "settings.trials"),
        ({"settings": {"epoch": 3}}, "settings.epoch"),
        ({"settings": {"label_smoothing": 1.0}}, "less than 1"),
        ({"settings": {"resolutions": [64, 48]}}, "must rise"),
        ({"settings": {"resolutions": []}}, "at least 1"),
        ({"settings": {"time_limit_seconds": "soon"}}, "not a duration: 'soon'"),
        ({"settings": {"time_limit_seconds": True}}, "seconds as a number"),
        ({"settings": {"time_limit_seconds": 0}}, "at least 1 second"),
        ({"settings": {"mac_limit": "20MB"}}, "not a count: '20MB'"),
        ({"settings": {"mac_limit": [1]}}, '"20M"'),
        ({"settings": {"patience": 0}}, "settings.patience"),
        ({"settings": {"sampler": "oracle"}}, "'predictor', 'tpe'"),
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
        (b'{"dataset": "d\\u0000", "memory_limit": 1}', "control characters"),
        (b'{"dataset": "d", "memory_limit": 1, "name": "a\\nb"}', "control characters"),
        (b'{"dataset": "d", "memory_limit": true}', "bytes as a number"),
        (b'{"dataset": "d", "memory_limit": -1}', "not a size: '-1'"),
        (b'{"dataset": "d", "memory_limit": 9223372036854775808}', "less than or equal"),
        (b'{"dataset": "d", "memory_limit": 1' + b"0" * 30 + b"}", "less than or equal"),
        (b'{"dataset": "d", "memory_limit": 1' + b"0" * 4000 + b"}", "at most 40 characters"),
        (b'{"dataset": "d", "memory_limit": "' + b"1" * 400 + b'.5GB"}', "at most 40 characters"),
        (b'{"dataset": "' + b"d" * 50_000 + b'", "memory_limit": 1}', "at most 100 characters"),
        (b'{"dataset": "d",}', "not JSON: "),
        (b'\xff{"dataset": "d"}', "not JSON: "),
        (b"[" * 90_000, "not JSON: "),
    ],
)
def test_bodies_that_json_or_numbers_can_not_say(
    client: httpx.Client, body: bytes, words: str
) -> None:
    refused = client.post("/jobs", content=body, headers={"content-type": "application/json"})
    assert words in problem(refused, 422)["detail"]
    assert len(refused.content) < 2_000


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_body_that_is_no_object_is_quoted_as_it_was_sent(
    client: httpx.Client, kind: str
) -> None:
    refused = client.post("/jobs", content=b"{bad", headers={"content-type": kind})
    (found,) = problem(refused, 422)["errors"]
    assert found["got"] == "{bad"


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


class TestIdempotency:
    @pytest.fixture
    def post(self, client: httpx.Client, dataset_id: str) -> Callable[..., httpx.Response]:
        def post(key: str, **changes: Any) -> httpx.Response:
            body = {"dataset": dataset_id, "memory_limit": "24MB"} | changes
            return client.post("/jobs", json=body, headers={"Idempotency-Key": key})

        return post

    def test_the_same_request_makes_one_job(
        self, client: httpx.Client, post: Callable[..., httpx.Response]
    ) -> None:
        first = post("k1")
        assert first.status_code == 202
        assert "idempotent-replayed" not in first.headers
        # what it means counts, not how it is written
        for again in (post("k1"), post("k1", memory_limit=24_000_000, settings={"seed": 0})):
            assert again.status_code == 202
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["location"] == first.headers["location"]
            assert again.json() == first.json()
        assert post("k2").json()["id"] != first.json()["id"]
        assert len(client.get("/jobs").json()) == 2

    def test_another_request_under_the_key_is_refused(
        self, client: httpx.Client, post: Callable[..., httpx.Response]
    ) -> None:
        post("k1")
        refused = post("k1", memory_limit="25MB")
        assert "'k1' came with another request" in problem(refused, 422)["detail"]
        assert len(client.get("/jobs").json()) == 1

    def test_what_was_refused_leaves_the_key_free(
        self, post: Callable[..., httpx.Response]
    ) -> None:
        problem(post("k1", memory_limit="100KB"), 422)
        assert post("k1").status_code == 202

    def test_a_repetition_is_not_judged_again(
        self,
        post: Callable[..., httpx.Response],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = post("k1").json()

        def refuse(*arguments: object, **named: object) -> None:
            raise AssertionError("judged again")

        monkeypatch.setattr("service.api.routes.jobs.check_feasible", refuse)
        assert post("k1").json() == first

    @pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
    def test_at_the_same_time(
        self, client: httpx.Client, post: Callable[..., httpx.Response]
    ) -> None:
        answers: list[httpx.Response] = []
        barrier = threading.Barrier(8)

        def send() -> None:
            barrier.wait()
            answers.append(post("k1"))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [202] * 8
        assert len({answer.json()["id"] for answer in answers}) == 1
        replayed = [answer for answer in answers if "idempotent-replayed" in answer.headers]
        assert len(replayed) == 7
        assert len(client.get("/jobs").json()) == 1

    @pytest.mark.parametrize("key", ["", "two words", "k" * 256, "schl\u00fcssel"])
    def test_keys_that_are_none(
        self, client: httpx.Client, post: Callable[..., httpx.Response], key: str
    ) -> None:
        body = {"dataset": "d1", "memory_limit": "24MB"}
        headers = [(b"Idempotency-Key", key.encode("latin-1"))]
        refused = client.post("/jobs", json=body, headers=headers)
        assert "idempotency-key" in problem(refused, 422)["detail"].lower()
