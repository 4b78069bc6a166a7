"""Whole jobs: what is run, what is kept of it, and the tables beside bars and peers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs import jobs
from benchmarks.jobs.jobs import WholeJob
from benchmarks.jobs.jobs_tables import comparison, logistic_accuracies, table
from service.cli.command import BAD_INPUT
from service.cli.main import main

LIMIT_BYTES = 24_000_000
PEERS = {("flowers17", 0): 0.9, ("flowers17", 1): 0.92, ("dtd10", 0): 0.88}


def row(dataset: str, seed: int, accuracy: float, peak_bytes: int = 20_000_000) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "limit_bytes": LIMIT_BYTES,
        "seed": seed,
        "test_accuracy": accuracy,
        "measured_peak_bytes": peak_bytes,
        "supernet": "lite",
        "method": "bias",
        "resolution": 96 + 32 * seed,
        "processor_seconds": 10.0 + seed,
    }


def cells(text: str, dataset: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {dataset} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_puts_jobs_beside_bars_and_peers():
    rows = [row("flowers17", 1, 0.95), row("flowers17", 0, 0.93, 23_900_000)]
    rows += [row("dtd10", 0, 0.85), row("dtd10", 1, 0.86), row("mine", 0, 0.5)]
    text = table(rows, (0, 1), PEERS)
    assert cells(text, "flowers17") == [
        *("flowers17", "93.0", "95.0", "94.0", "93.0", "yes", "91.0", "+3.0", "23.9"),
        *("lite, bias, 96 px; lite, bias, 128 px", "10"),
    ]
    # the peer's one seed is compared with the job of that seed
    assert cells(text, "dtd10")[1:8] == ["85.0", "86.0", "85.5", "86.0", "no", "88.0", "-3.0"]
    assert cells(text, "mine")[1:8] == ["50.0", "-", "50.0", *["-"] * 4]


def test_a_bar_is_met_by_all_seeds_within_the_limit():
    good, heavy = row("flowers17", 0, 0.95), row("flowers17", 1, 0.99, LIMIT_BYTES + 1)
    assert cells(table([good], (0, 1), {}), "flowers17")[5] == "not finished"
    heavier = cells(table([good, heavy], (0, 1), {}), "flowers17")
    assert heavier[5] == "no"
    assert heavier[8] == "24.0 (above the limit)"


def test_jobs_are_compared_with_peers_of_the_same_seeds():
    rows = [row("flowers17", 0, 0.93), row("flowers17", 1, 0.95), row("dtd10", 0, 0.87)]
    rows += [row("dtd10", 1, 0.1), row("mine", 0, 0.1)]
    assert comparison(rows, PEERS) == (
        "Mean 90.5, logistic regression 89.5: +1.0 points (standard error over datasets 2.0), "
        "above on 1 of 2."
    )
    assert comparison(rows, {}) is None


def test_peers_are_read_from_their_record():
    record = {
        "a": {"peer": "logistic", "dataset": "dtd10", "seed": 2, "test_accuracy": 0.8},
        "b": {"peer": "training", "dataset": "dtd10", "seed": 2, "test_accuracy": 0.9},
        "c": {"peer": "memory", "allocator_peak_bytes": 1},
    }
    assert logistic_accuracies(record) == {("dtd10", 2): 0.8}


def answer(**chosen: str) -> dict[str, Any]:
    """As `tinyfit adapt --json` prints a finished job."""
    figures = {"test_accuracy": 0.9, "validation_accuracy": 0.8, "head_only_test_accuracy": 0.7}
    peaks = {"measured_peak_bytes": 19_000_000, "predicted_peak_bytes": 19_500_000}
    result = {"resolution": 96, "macs": 71_000_000, "trials": 48, **figures, **peaks, **chosen}
    return {"supernet": "asked", "method": "auto", "result": result}


def test_what_the_job_chose_goes_before_what_was_asked_for():
    job = WholeJob(dataset=Path("a.zip"), limit_bytes=LIMIT_BYTES, seed=0, options=())
    plain, chosen = job.row_of(answer()), job.row_of(answer(method="bias", supernet="lite1"))
    assert (plain["supernet"], plain["method"]) == ("asked", "auto")
    assert (chosen["supernet"], chosen["method"]) == ("lite1", "bias")


def test_jobs_go_on_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data, results, peers = (tmp_path / name for name in ("a.zip", "results.json", "peers.json"))
    data.write_bytes(b"images")
    peers.write_text("{}")
    command = f"jobs --sets {data} --limits 24MB --seeds 0 1 --results {results} --peers {peers}"
    monkeypatch.setattr("sys.argv", [*command.split(), "--json", "--", "--trials", "12"])
    real, commands = WholeJob.command, []
    busy = f"sum(range(10**6)); print({json.dumps(json.dumps(answer()))})"

    def pretended(job: WholeJob, output: Path) -> list[str]:
        commands.append(real(job, output)[1:])
        is_good = job.seed == 0 or len(commands) > 2
        return [sys.executable, "-c", busy if is_good else "raise SystemExit(2)"]

    monkeypatch.setattr(WholeJob, "command", pretended)
    assert jobs.main() == 1
    said = capsys.readouterr()
    assert "failed: a 24.0 MB seed 1" in said.out
    assert "ended with status 2" in said.err
    (first,) = json.loads(said.out.splitlines()[-1])["rows"]
    assert first["processor_seconds"] > 0
    assert first["options"] == ["--trials", "12"]

    assert jobs.main() == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert rows[0] == first
    assert [each["seed"] for each in rows] == [0, 1]
    assert [words[words.index("--seed") + 1] for words in commands] == ["0", "1", "1"]
    assert commands[0][:4] == ["-m", "service.cli", "adapt", str(data)]
    assert commands[0][-3:] == ["--json", "--trials", "12"]


def test_the_command_line_knows_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It reads all options before it finds that there is no such file."""
    job = WholeJob(dataset=tmp_path / "no.zip", limit_bytes=1, seed=7, options=("--trials", "3"))
    python, dash, module, *arguments = job.command(tmp_path / "out")
    assert (python, dash, module) == (sys.executable, "-m", "service.cli")
    assert main(arguments) == BAD_INPUT
    assert "no.zip" in capsys.readouterr().err
