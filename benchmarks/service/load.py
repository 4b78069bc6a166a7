"""How fast GET /jobs/{id} answers under a steady load, with and without a job that trains beside.

    python -m benchmarks.service.load [--postgresql URL] [--json]

`tinyfit serve` and, for the training, `tinyfit worker` run as an installation runs them, over a
new SQLite file and over a new database of the PostgreSQL server at URL, with 10,000 jobs in the
record. 200 requests a second are sent from a process of its own, each for the next of 500 jobs
picked at random (benchmarks/service/load_client.py says what is timed). The job beside them is in
its final training, whose every epoch writes to the database.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import select, update

from benchmarks.service.record_rows import fill, new_database
from benchmarks.shared.machine import describe_machine
from service.contract.status import Status
from service.record.db.database import Database
from service.record.db.models import Job
from service.views.results import JobResult
from tinytl.description.method import Method

_NUM_ASKED_FOR = 500
_START_SECONDS = 120
_RESULT = JobResult(
    method=Method.BIAS,
    subnet={"kernel_sizes": [3] * 20, "expand_ratios": [3] * 20, "depths": [2] * 5},
    resolution=96,
    plan={"batch_size": 8},
    predicted_peak_bytes=20_000_000,
    measured_peak_bytes=19_000_000,
    validation_accuracy=0.9,
    test_accuracy=0.9,
    head_only_test_accuracy=0.8,
    trials=24,
).model_dump(mode="json", exclude={"checkpoint"})


@dataclass(frozen=True, kw_only=True)
class Row:
    """Milliseconds from when a request was due to the end of its answer."""

    database: str
    training: bool
    requests: int
    requests_per_second: float
    p50: float
    p99: float
    max: float
    errors: int
    connections: int
    load_before: float
    """The machine's load average before the server was started; others' work, if it is not 0."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--postgresql", metavar="URL", help="measure on this server too")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60, help="how long each is measured")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--no-training", action="store_true", help="only without a job beside")
    arguments = parser.parse_args()
    rows = []
    for server_url in [None, *([arguments.postgresql] if arguments.postgresql else [])]:
        for training in (False,) if arguments.no_training else (False, True):
            row = measure(
                server_url,
                num_jobs=arguments.jobs,
                rate=arguments.rate,
                seconds=arguments.seconds,
                training=training,
            )
            rows.append(row)
            print(
                f"{row.database:10}  {'training beside' if training else 'nothing beside':15}  "
                f"{row.requests_per_second:5.1f}/s  p50 {row.p50:6.2f} ms  p99 {row.p99:6.2f} ms  "
                f"max {row.max:6.2f} ms  {row.errors} errors  (load before {row.load_before})",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": [asdict(row) for row in rows]}))


def measure(
    server_url: str | None, *, num_jobs: int, rate: float, seconds: float, training: bool
) -> Row:
    load_before = round(os.getloadavg()[0], 2)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data_dir = directory / "data"
        url = f"sqlite:///{data_dir / 'tinyfit.db'}"
        if server_url is not None:
            url = stack.enter_context(new_database(server_url))
        paths = _filled(url, num_jobs)
        environment = {
            **os.environ,
            "TINYFIT_DATA_DIR": str(data_dir),
            "TINYFIT_DATABASE_URL": url,
        }
        log = directory / "log"
        stack.enter_context(_running(("serve", "--port", "0", "--no-worker"), environment, log))
        port = _wait_for_port(log)
        beside = _job_in_training(environment, port, directory / "worker.log")
        with beside if training else nullcontext():
            found = _ask(port, paths, rate=rate, seconds=seconds)
    times = sorted(found["milliseconds"])
    return Row(
        database="SQLite" if server_url is None else "PostgreSQL",
        training=training,
        requests=len(times),
        requests_per_second=round(found["requests_per_second"], 1),
        p50=round(times[len(times) // 2], 2),
        p99=round(times[len(times) * 99 // 100], 2),
        max=round(times[-1], 2),
        errors=len(found["errors"]),
        connections=found["connections"],
        load_before=load_before,
    )


def _filled(url: str, num_jobs: int) -> list[str]:
    """Put jobs into a new database, and pick those to ask for."""
    database = Database(url)
    database.upgrade()
    fill(database, num_jobs=num_jobs, num_queued=0)
    with database.writing() as session:
        session.execute(update(Job).where(Job.status == Status.SUCCEEDED).values(result=_RESULT))
        ids = list(session.scalars(select(Job.id).order_by(Job.id)))
    database.close()
    return [f"/jobs/{job_id}" for job_id in random.Random(0).choices(ids, k=_NUM_ASKED_FOR)]


@contextmanager
def _running(arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "service.cli", *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_port(log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(r"serves http://\S+:(\d+)", log.read_text())
        if found is not None:
            return int(found[1])
        time.sleep(0.05)
    raise SystemExit(f"the server does not start: {log.read_text()}")


@contextmanager
def _job_in_training(environment: dict[str, str], port: int, log: Path) -> Iterator[None]:
    """A worker whose job has reached its final training, and stays there."""
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        _running(("worker",), {**environment, "TINYFIT_STOP_GRACE_SECONDS": "1"}, log),
    ):
        dataset = client.post("/datasets", files={"file": _noise()}).json()["id"]
        settings = {"trials": 1, "adapt_steps": 1, "epochs": 1000, "resolutions": [64]}
        body = {"dataset": dataset, "memory_limit": "24MB", "settings": settings}
        url = client.post("/jobs", json=body).headers["Location"]
        deadline = time.monotonic() + _START_SECONDS
        while _epochs(client, url) < 2:
            job = client.get(url).json()
            if job["error"] or time.monotonic() > deadline:
                raise SystemExit(f"the job does not come to its training: {job}")
            time.sleep(0.2)
        before = _epochs(client, url)
        yield
        if _epochs(client, url) <= before:
            raise SystemExit("the job did not train meanwhile")


def _epochs(client: httpx.Client, url: str) -> int:
    events = client.get(f"{url}/events?limit=1000", headers={"Accept": "application/json"}).json()
    return sum(event["kind"] == "epoch" for event in events)


def _noise(num_images: int = 120) -> bytes:
    """A zip of two classes of random images."""
    generator = np.random.default_rng(0)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(num_images):
            pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, "PNG")
            archive.writestr(f"{'ab'[number % 2]}/{number}.png", image.getvalue())
    return stream.getvalue()


def _ask(port: int, paths: list[str], *, rate: float, seconds: float) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.service.load_client", "127.0.0.1", str(port)]
    done = subprocess.run(
        [*command, "--rate", str(rate), "--seconds", str(seconds)],
        input="\n".join(paths),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
