"""`tinyfit serve` as a process: whom it serves, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.record.db.database import Database
from service.record.db.models import Job
from service.record.keys import create_key
from service.settings import Settings
from tests.service.api.problems import problem


def command(settings: Settings, host: str) -> list[str]:
    serve = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--no-worker"]
    return [*serve, "--host", host, "--data-dir", str(settings.data_dir)]


@contextmanager
def serving(
    settings: Settings, host: str, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process and its port."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(command(settings, host), stderr=stderr)
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(r"serves http://\S+:(\d+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_does_not_serve_others_without_a_key(
    settings: Settings, database: Database, host: str
) -> None:
    done = subprocess.run(
        command(settings, host), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "tinyfit keys create NAME" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_serves_others_with_a_key(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    _, text = create_key(database, "laptop")
    with serving(settings, "0.0.0.0", tmp_path / "log") as (_, port):
        url = f"http://127.0.0.1:{port}/jobs"
        problem(httpx.get(url), 401)
        assert httpx.get(url, headers={"Authorization": f"Bearer {text}"}).json() == []


def test_it_ends_at_once_while_clients_follow_events(
    settings: Settings, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    url = f"/jobs/{make_job().id}/events"
    with (
        serving(settings, "127.0.0.1", tmp_path / "log") as (process, port),
        httpx.stream("GET", f"http://127.0.0.1:{port}{url}") as response,
    ):
        parts = response.iter_text()
        assert "event: status" in next(parts)
        os.kill(process.pid, signal.SIGTERM)
        began_at = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - began_at < 5
        for _ in parts:  # ends in good order, not cut off
            pass
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_answers_are_not_held_back(settings: Settings, database: Database, tmp_path: Path) -> None:
    """Head and body are sent one after the other; a body that waits until the head's receipt is
    confirmed is 40 ms late each time."""
    with (
        serving(settings, "127.0.0.1", tmp_path / "log") as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        assert min(client.get("/jobs").elapsed.total_seconds() for _ in range(20)) < 0.03
