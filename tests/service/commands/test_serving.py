"""`tinyfit serve` as users run it: processes, signals, and a job over HTTP."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.record.files.artifacts import ADAPTING
from tests.service.support.processes import is_alive, wait_for

pytestmark = pytest.mark.long

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, int]]:
    """A running `tinyfit serve`, its address, and the process id of its worker."""
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "service.cli", "serve"),
                *("--port", "0", "--data-dir", str(tmp_path / "data")),
            ],
            stderr=stderr,
            env={**os.environ, "TINYFIT_POLL_SECONDS": "0.2"},
        )
    address = worker = None

    def is_up() -> bool:
        nonlocal address, worker
        text = log.read_text()
        address = re.search(r"tinyfit serves (http://\S+)", text)
        worker = re.search(r"worker (\d+) waits", text)
        return bool(address and worker)

    try:
        wait_for(is_up, 60)
        assert address is not None
        assert worker is not None
        yield process, address[1], int(worker[1])
    finally:
        process.kill()
        process.wait()


def test_serve_answers_and_ends_in_good_order(
    server: tuple[subprocess.Popen[bytes], str, int],
) -> None:
    process, address, worker = server
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not is_alive(worker)


def test_the_worker_is_started_again_and_ends_with_the_server(
    server: tuple[subprocess.Popen[bytes], str, int], tmp_path: Path
) -> None:
    process, _, worker = server
    os.kill(worker, signal.SIGKILL)
    log = tmp_path / "log"
    wait_for(lambda: len(re.findall(r"worker \d+ waits", log.read_text())) == 2)
    again = int(re.findall(r"worker (\d+) waits", log.read_text())[-1])
    assert is_alive(again)
    process.kill()
    wait_for(lambda: not is_alive(again))


def test_a_job_over_http_is_cancelled_or_delivers(
    server: tuple[subprocess.Popen[bytes], str, int],
    make_zip: MakeZip,
    split_files: Files,
    tmp_path: Path,
) -> None:
    _, address, _ = server
    with httpx.Client(base_url=address, timeout=30) as client:
        archive = {"file": make_zip(split_files).read_bytes()}
        dataset = client.post("/datasets", files=archive).json()["id"]

        def post(**settings: Any) -> str:
            body = {
                "dataset": dataset,
                "memory_limit": "6MB",
                "settings": {"resolutions": [32], "trials": 1, "epochs": 1, **settings},
            }
            return client.post("/jobs", json=body).headers["Location"]

        def status(url: str) -> str:
            found: str = client.get(url).json()["status"]
            return found

        endless = post(adapt_steps=1_000_000)
        short = post(adapt_steps=2)
        wait_for(lambda: client.get(endless).json()["stage"] == "adapt", 60)
        assert client.get(f"{endless}/trials").json() == []
        assert client.post(f"{endless}/cancel").status_code == 202
        wait_for(lambda: status(endless) == "cancelled")
        wait_for(lambda: status(short) != "queued")
        job_dir = tmp_path / "data" / "jobs" / endless.rsplit("/", 1)[-1]
        names = {path.name for path in job_dir.glob("*/*")}
        assert names <= {ADAPTING}
        assert client.delete(endless).status_code == 204
        assert not job_dir.exists()

        wait_for(lambda: status(short) not in ("queued", "running"), 90)
        job = client.get(short).json()
        assert job["error"] is None
        assert len(client.get(f"{short}/trials").json()) == 1
        checkpoint = job["result"]["checkpoint"]
        bundle = client.get(checkpoint["url"])
        assert len(bundle.content) == checkpoint["bytes"]


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_a_server_with_an_old_schema_is_not_worked_with(
    empty_url: str, tmp_path: Path, command: str
) -> None:
    """An SQLite file is brought up to date as it is opened; a server's database by a person."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", command, "--data-dir", str(tmp_path)],
        env={**os.environ, "TINYFIT_DATABASE_URL": empty_url, "TINYFIT_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "run tinyfit db upgrade" in done.stderr
