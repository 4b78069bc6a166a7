"""The same jobs by two builds: what is run, the memory of its processes, the table."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from benchmarks.jobs import job_time
from benchmarks.jobs.job_time import Build, TimedJob
from benchmarks.jobs.job_time_tables import tables
from benchmarks.jobs.process_memory import MemoryWatch, proportional_bytes, with_descendants

SUPERNET = "ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet"


def row(build: str, seed: int, **changed: Any) -> dict[str, Any]:
    times_less = {"old": 1, "new": 2}[build]
    return {
        "build": build,
        "dataset": "flowers17",
        "limit_bytes": 24_000_000,
        "seed": seed,
        "wall_seconds": 400 / times_less,
        "processor_seconds": 300 / times_less,
        "test_accuracy": 0.9,
        "head_only_test_accuracy": 0.8,
        "measured_peak_bytes": 20_000_000,
        "memory_bytes": 900_000_000,
        **changed,
    }


def test_a_table_has_both_builds_and_their_ratios():
    """Of seeds that both have finished: the second seed of the old build is alone."""
    rows = [row("old", 0), row("new", 0, test_accuracy=0.91), row("old", 1)]
    table, _, sentences = tables(rows).partition("\n\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    where = ["flowers17", "24.0 MB", "1"]
    assert cells[2:] == [
        [*where, "old", "400", "300", "90.0", "80.0", "20.0", "900"],
        [*where, "new", "200", "150", "91.0", "80.0", "20.0", "900"],
        [*where, "new : old", "0.50", "0.50", "+1.0", "+0.0", "1.00", "1.00"],
    ]
    assert sentences.splitlines() == [
        "Wall clock, all jobs: 0.50 of the old build's (bar 0.4: not met).",
        "Processor time, all jobs: 0.50 of the old build's (bar 0.6: met).",
        "Test accuracy: +1.0 points.",
    ]


def test_memory_that_the_system_does_not_tell_is_unknown():
    table = tables([row("old", 0), row("new", 0, memory_bytes=None)])
    assert "| new : old | 0.50 | 0.50 | +0.0 | +0.0 | 1.00 | unknown |" in table
    assert "no seed" in tables([row("old", 0)])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_children_too():
    """A process whose child holds 64 MB: the pair is told of, and nothing once both have ended."""
    held = "held = bytearray(b'1' * 64 * 10**6); print('held', flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(with_descendants({process.pid})) == 2
        own = proportional_bytes(process.pid)
        assert own is not None
        with MemoryWatch(process.pid) as watch:
            while watch.peak_bytes is None:
                time.sleep(0.01)
            process.communicate(b"\n")
    assert watch.peak_bytes is not None
    assert watch.peak_bytes > own + 64 * 10**6
    assert with_descendants({process.pid}) == set()
    assert proportional_bytes(process.pid) is None


def test_jobs_that_are_kept_are_not_run_again(tmp_path, monkeypatch, capsys):
    """Both builds in turn, seed by seed; each is told its own options."""
    dataset = tmp_path / "photos"
    dataset.mkdir()
    monkeypatch.setattr(Build, "commit", property(lambda build: build.name))
    told = []

    def run(job: TimedJob) -> dict[str, Any]:
        told.append((job.build.name, job.seed, job.build.options, job.options))
        return row(job.build.name, job.seed)

    monkeypatch.setattr(TimedJob, "run", run)
    arguments = [
        *("job_time", str(tmp_path), str(tmp_path), "--sets", str(dataset), "--seeds", "0", "1"),
        *("--cases", f"24MB:{SUPERNET}", "--new-options=--fit crop"),
        *("--results", str(tmp_path / "kept.json"), "--json", "--", "--trials", "2"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert job_time.main() == 0
    assert told == [
        (build, seed, own, ("--trials", "2"))
        for seed in (0, 1)
        for build, own in (("old", ()), ("new", ("--fit", "crop")))
    ]
    first = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert job_time.main() == 0
    assert len(told) == 4
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == first


def test_a_case_names_a_limit_and_a_supernet(tmp_path, monkeypatch, capsys):
    arguments = ["job_time", *[str(tmp_path)] * 2, "--sets", str(tmp_path), "--cases", "24MB"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        job_time.main()
    assert "must be LIMIT:SUPERNET but is '24MB'" in capsys.readouterr().err
