"""The commands over HTTP, on a real server; a stand-in for the worker ends the jobs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from service.api.app import create_app
from service.cli.main import main
from service.contract.requests import JobSettings
from service.contract.status import Priority, Status
from service.record.claims import (
    Claim,
    add_log,
    fail_job,
    set_progress,
)
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.jobs import get_job
from service.record.keys import create_key
from service.settings import Settings
from tests.service.api.live import served
from tests.service.support.delivery import deliver
from tinytl.description.plan import Plan

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]
MakeJob = Callable[..., Job]
MakeClaim = Callable[[], Claim]
Say = Callable[..., tuple[int, str, str]]

BUNDLE_BYTES = bytes(range(256)) * 500
RESULT: dict[str, Any] = {
    "method": "bias",
    "subnet": {},
    "resolution": 48,
    "plan": asdict(Plan.whole(8)),
    "predicted_peak_bytes": 20_000_000,
    "measured_peak_bytes": 19_000_000,
    "validation_accuracy": 0.9,
    "test_accuracy": 0.876,
    "head_only_test_accuracy": 0.6,
    "trials": 1,
}
LIMIT = ["--memory-limit", "24MB"]


@pytest.fixture
def url(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    quick = settings.model_copy(update={"event_poll_seconds": 0.05})
    with served(create_app(quick)) as url:
        monkeypatch.setenv("TINYFIT_URL", url)
        yield url


@pytest.fixture
def say(url: str, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command; its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def finish(settings: Settings, database: Database) -> Callable[[Claim], None]:
    return lambda claim: deliver(settings, database, claim, BUNDLE_BYTES, RESULT)


def last_json(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def test_submit_a_zip_and_a_folder(
    say: Say, make_zip: MakeZip, flat_files: Files, tmp_path: Path, database: Database
) -> None:
    status, out, err = say("submit", make_zip(flat_files), *LIMIT, "--trials", "3", "--json")
    assert status == 0
    job = last_json(out)
    assert job["priority"] == "normal"
    assert job["status"] == "queued"
    assert job["settings"]["trials"] == 3
    assert job["settings"]["epochs"] == JobSettings().epochs
    assert get_job(database, job["id"]).memory_limit_bytes == 24_000_000
    assert "note: There are no validation and no test images" in err

    folder = tmp_path / "my photos"
    for name, data in flat_files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    status, out, _ = say("submit", folder, *LIMIT, "--name", "by folder")
    assert status == 0
    assert re.fullmatch(r"job \w{32} is queued: `tinyfit watch \w{8}` shows .*\n", out)
    _, out, _ = say("submit", job["dataset"], *LIMIT, "--priority", "high", "--json")
    assert (last_json(out)["dataset"], last_json(out)["priority"]) == (job["dataset"], "high")
    _, out, _ = say("list", "--json")
    assert [found["dataset"] for found in last_json(out)["jobs"]] == 3 * [job["dataset"]]
    assert last_json(out)["jobs"][1]["name"] == "by folder"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", *LIMIT], "'nowhere' does not exist"),
        ([32 * "0", *LIMIT], "no dataset"),
        (["ZIP", "--memory-limit", "100KB"], r"smallest feasible one is"),
        (["ZIP", "--memory-limit", "24 parsecs"], "24 parsecs"),
        (["ZIP", *LIMIT, "--priority", "top"], "priority 'top': .*'high', 'normal' or 'low'"),
        (["ZIP", *LIMIT, "--supernet", "nowhere"], "unknown supernet 'nowhere'"),
    ],
)
def test_submit_refuses(
    say: Say, make_zip: MakeZip, flat_files: Files, arguments: list[str], words: str
) -> None:
    archive = make_zip(flat_files)
    status, out, err = say(
        "submit", *(archive if given == "ZIP" else given for given in arguments)
    )
    assert (status, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("tinyfit: ")
    assert re.search(words, last)


def test_list(say: Say, make_job: MakeJob, claim: MakeClaim, database: Database) -> None:
    assert say("list")[1] == "no jobs\n"
    first = make_job("first")
    fail_job(database, claim(), "no luck")
    make_job("sec\u202eond")
    status, out, _ = say("list")
    assert status == 0
    head, second_line, first_line = out.splitlines()
    heads = "JOB STATUS PRIORITY DONE CREATED LIMIT TEST NAME"
    assert head.split() == heads.split()
    assert re.match(
        rf"{first.id[:8]}  failed +normal +0%  \d{{4}}-\d\d-\d\d .* 24\.0 MB", first_line
    )
    assert "queued" in second_line
    assert "\u202e" not in second_line
    assert say("list", "--status", "failed")[1].splitlines()[1:] == [first_line]
    assert len(say("list", "--limit", "1")[1].splitlines()) == 2
    assert say("list", "--dataset", "other")[1] == "no jobs\n"
    status, _, err = say("list", "--status", "odd")
    assert (status, "no such status: 'odd'" in err) == (2, True)


def test_prioritize(say: Say, make_job: MakeJob, database: Database) -> None:
    job = make_job("urgent")
    status, out, _ = say("prioritize", job.id[:8], "high")
    assert (status, out) == (0, f"job {job.id[:8]} is queued, its priority high\n")
    assert get_job(database, job.id).priority is Priority.HIGH
    status, _, err = say("prioritize", job.id, "top")
    assert (status, "no such priority: 'top'; it is one of high, normal, low" in err) == (2, True)


def test_watch_a_job_to_its_end(
    say: Say,
    make_job: MakeJob,
    claim: MakeClaim,
    database: Database,
    finish: Callable[[Claim], None],
) -> None:
    job = make_job("watched")

    def work() -> None:
        held = claim()
        set_progress(database, held, stage="search", progress=0.25, seconds_left=90.0)
        add_log(database, held, "half\x1b[31m way")
        time.sleep(1.5)
        finish(held)

    thread = threading.Thread(target=work)
    thread.start()
    status, out, err = say("watch", job.id[:6], "--json")
    thread.join()
    assert status == 0
    assert last_json(out)["result"]["test_accuracy"] == 0.876
    lines = err.splitlines()
    assert [line.split("  ", 1)[1].partition(" on ")[0] for line in lines if ":" in line] == [
        *(
            "queued",
            "running",
            "stage search",
            "half\N{REPLACEMENT CHARACTER}[31m way",
            "succeeded",
        )
    ]
    assert any(re.fullmatch(r"search +25% +about 1 min \d+ s left", line) for line in lines)
    status, out, _ = say("watch", job.id)
    assert status == 0
    assert "test accuracy    87.6% (head-only training: 60.0%)" in out
    assert f"`tinyfit download {job.id[:8]}`" in out


def test_watch_a_job_that_fails(
    say: Say, make_job: MakeJob, claim: MakeClaim, database: Database
) -> None:
    job = make_job()
    fail_job(database, claim(), "no luck")
    status, out, _ = say("watch", job.id)
    assert (status, out) == (1, f"job {job.id[:8]} failed: no luck\n")
    status, out, _ = say("watch", job.id, "--json")
    assert (status, last_json(out)["status"]) == (1, "failed")


def heed_ctrl_c() -> None:
    """Where the tests run in the background of a shell, they inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_leaves_the_job_running(url: str, make_job: MakeJob, database: Database) -> None:
    job = make_job()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "watch", job.id],
        env={**os.environ, "TINYFIT_URL": url},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    try:
        assert process.stderr is not None
        assert "queued" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert f"stopped watching; job {job.id[:8]} goes on" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert get_job(database, job.id).status is Status.QUEUED


def test_download(
    say: Say,
    make_job: MakeJob,
    claim: MakeClaim,
    finish: Callable[[Claim], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job()
    monkeypatch.chdir(tmp_path)
    status, _, err = say("download", job.id)
    assert status == 2
    assert "is queued and has no checkpoint" in err
    finish(claim())
    status, out, _ = say("download", job.id[:8], "--json")
    path = Path(f"tinyfit-{job.id[:8]}.zip")
    assert status == 0
    assert last_json(out)["path"] == str(path)
    assert path.read_bytes() == BUNDLE_BYTES
    assert say("download", job.id, "--output", tmp_path / "other.zip")[0] == 0
    assert (tmp_path / "other.zip").read_bytes() == BUNDLE_BYTES
    status, _, err = say("download", job.id, "--output", "no/such/folder.zip")
    assert (status, "No such file" in err) == (1, True)


def test_a_download_goes_on_with_what_is_there(
    say: Say,
    make_job: MakeJob,
    claim: MakeClaim,
    finish: Callable[[Claim], None],
    tmp_path: Path,
) -> None:
    job = make_job()
    finish(claim())
    target = tmp_path / "model.zip"
    partial = tmp_path / f".model.zip.{hashlib.sha256(BUNDLE_BYTES).hexdigest()[:16]}.partial"
    partial.write_bytes(BUNDLE_BYTES[:1000])
    assert say("download", job.id, "--output", target)[0] == 0
    assert target.read_bytes() == BUNDLE_BYTES
    target.unlink()
    partial.write_bytes(b"?" * 1000)  # the server sends the rest only, so this shows
    status, _, err = say("download", job.id, "--output", target)
    assert (status, "the download is damaged" in err) == (1, True)
    assert list(tmp_path.glob("*model*")) == []


def test_steering(say: Say, make_job: MakeJob, claim: MakeClaim) -> None:
    job = make_job()
    for action, words in (
        ("pause", "is paused"),
        ("resume", "is queued"),
        ("cancel", "is cancelled"),
        ("retry", "is queued"),
    ):
        assert say(action, job.id)[:2] == (0, f"job {job.id[:8]} {words}\n")
    status, _, err = say("retry", job.id)
    assert (status, "is queued; only one that failed" in err) == (2, True)
    claim()
    assert say("cancel", job.id)[1] == f"job {job.id[:8]} is running and asked to cancel\n"
    status, _, err = say("delete", job.id)
    assert (status, "is running; cancel it first" in err) == (2, True)


def test_delete(say: Say, make_job: MakeJob) -> None:
    job = make_job()
    assert last_json(say("delete", job.id, "--json")[1]) == {"id": job.id, "deleted": True}
    assert say("watch", job.id)[0] == 2


def test_ids_that_are_cut_short(say: Say, make_job: MakeJob) -> None:
    jobs = [make_job() for _ in range(17)]
    first = [job.id[0] for job in jobs]
    twice = next(letter for letter in first if first.count(letter) > 1)
    status, _, err = say("cancel", twice)
    assert (status, "jobs have an id that begins with" in err) == (2, True)
    for text in ("", "zz"):
        status, _, err = say("cancel", text)
        assert (status, "none of the newest 1000 jobs" in err) == (2, True)


def test_keys_are_sent(
    say: Say, url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = create_key(database, "laptop")
    monkeypatch.setenv("TINYFIT_API_KEY", "tf_wrong")
    deadline = time.monotonic() + 10
    while (said := say("list"))[0] == 0:  # what the server knows of keys is a moment old
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert said[0] == 2
    assert "API key" in said[2]
    monkeypatch.setenv("TINYFIT_API_KEY", key)
    assert say("list")[0] == 0


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--url", "http://127.0.0.1:9"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"tinyfit: can't reach http://127.0.0.1:9 .*tinyfit serve", line)
    assert main(["list", "--url", "127.0.0.1:9"]) == 2


def test_datasets_are_listed_and_deleted(
    say: Say, make_zip: Callable[[Mapping[str, bytes]], Path], flat_files: dict[str, bytes]
) -> None:
    assert say("datasets", "list") == (0, "no datasets\n", "")
    archive = make_zip(flat_files)
    job = last_json(say("submit", archive, *LIMIT, "--json")[1])
    status, out, _ = say("datasets", "list")
    assert status == 0
    assert out.split()[:3] == [job["dataset"], "12", "images"]
    assert last_json(say("datasets", "list", "--json")[1])["datasets"][0]["id"] == job["dataset"]
    status, _, error = say("datasets", "delete", job["dataset"])
    assert status == 2
    assert f"belongs to jobs that are there ({job['id']})" in error
    assert say("delete", job["id"])[0] == 0
    status, out, _ = say("datasets", "delete", job["dataset"])
    assert (status, out) == (0, f"dataset {job['dataset']} is deleted\n")
    assert say("datasets", "delete", job["dataset"])[0] == 2
