"""Logs as a collector reads them: a JSON object a line, whatever the process."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import get_job
from service.settings import Settings
from tests.service.support.processes import FAKE_CHILD, RUN_WORKER, wait_for

Line = dict[str, Any]


def lines_of(log: Path) -> list[Line]:
    found: list[Line] = [json.loads(line) for line in log.read_text().splitlines()]
    for line in found:
        assert line.keys() >= {"time", "level", "logger", "message"}
        assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    return found


def test_worker_and_child_say_which_attempt_they_are_at(
    settings: Settings, database: Database, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = make_job("crash")
    log = tmp_path / "log"
    as_json = settings.model_copy(update={"log_format": "json"}).model_dump_json()
    with log.open("wb") as stderr:
        command = [sys.executable, "-c", RUN_WORKER, as_json, *FAKE_CHILD]
        worker = subprocess.Popen(command, stderr=stderr)
    wait_for(lambda: get_job(database, job.id).status.is_final)
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)

    name = f"{socket.gethostname()}:{worker.pid}"
    lines = lines_of(log)
    assert {line["worker"] for line in lines} == {name}
    # between jobs it would report the dataset anew, of which there are no images
    of_jobs = [line for line in lines if line["logger"].startswith("service.work.")]
    # and perhaps a fourth line, that the job is gone, of a worker too quick
    waits, claimed, crashed, *_ = of_jobs
    assert (waits["logger"], waits["level"]) == ("service.work.worker", "INFO")
    assert "job" not in waits
    for line in (claimed, crashed):
        assert (line["job"], line["attempt"]) == (job.id, 1)
    assert (crashed["logger"], crashed["level"]) == ("service.work.child", "ERROR")
    assert "RuntimeError: a defect" in crashed["exception"]
    assert "Traceback" not in crashed["message"]


def serve(log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "service.cli", "serve", "--no-worker", *arguments]
    with log.open("wb") as stderr:
        return subprocess.Popen(
            [*command, "--data-dir", str(log.parent / "data")],
            stderr=stderr,
            env={**os.environ, "TINYFIT_LOG_FORMAT": "json"},
        )


def test_the_server_and_its_library_log_alike(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = serve(log, "--port", "0")
    wait_for(lambda: "startup complete" in log.read_text())
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    loggers = {line["logger"] for line in lines_of(log)}
    assert loggers == {"service.commands.serving", "uvicorn.error"}


def test_what_keeps_the_server_from_starting_is_a_line_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = serve(tmp_path / "log", "--port", str(port))
        assert server.wait(20) == 1
    (line,) = lines_of(tmp_path / "log")
    assert (line["level"], f"can't listen on 127.0.0.1:{port}" in line["message"]) == (
        "ERROR",
        True,
    )


def test_an_error_that_nobody_catches_is_one_line() -> None:
    program = """
import warnings
from service.logs import logged_with, set_up_logs
set_up_logs("json")
with logged_with(job="j1"), logged_with(attempt=2):
    warnings.warn("beware")
1 / 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    warned, ended = map(json.loads, done.stderr.splitlines())
    assert (warned["job"], warned["attempt"], warned["logger"]) == ("j1", 2, "py.warnings")
    assert "job" not in ended
    assert "ZeroDivisionError" in ended["exception"]
    assert done.returncode == 1
