"""Whole jobs, by the command line that users type, beside what they should reach.

    python -m benchmarks.jobs.jobs --sets DATA.zip [DATA.zip ...] [--limits 24MB 6MB]
        [--seeds 0 1 2] [--results FILE] [--finished] [--json] [-- OPTION ...]

Each set, limit and seed is a process of its own, one after the other: `tinyfit adapt DATA.zip
--memory-limit LIMIT --seed SEED`, with the options after `--`. Prints, by limit and set, test
accuracy, the measured peak, what was chosen and the processor's seconds, of the process and all
that it started; beside the bar of the project for that set and limit, and the logistic regression
of benchmarks.jobs.peers on the same images (its results file: --peers).

Finished jobs are kept in --results: a command that was stopped goes on where it is run again; the
job that it was at begins anew, so that its seconds are those of a whole one. Delete the file after
a change of the code. --finished runs nothing and prints what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.jobs.jobs_tables import comparison, logistic_accuracies, table
from benchmarks.jobs.processor_time import seconds_of_children
from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import content_digest, digest_of
from tinytl.units import format_bytes, parse_size

_REPOSITORY = Path(__file__).parents[2]
_PEERS = Path(__file__).with_name("records") / "peers.json"


@dataclass(frozen=True, kw_only=True)
class WholeJob:
    """A job to run; options are those of `tinyfit adapt`."""

    dataset: Path
    limit_bytes: int
    seed: int
    options: tuple[str, ...]

    def key(self) -> str:
        """Names the job by everything that decides its outcome, but the code."""
        digest = digest_of([content_digest(self.dataset), self.options])
        return f"{self.dataset.stem} {self.limit_bytes} {self.seed} {digest}"

    def describe(self) -> str:
        return f"{self.dataset.stem} {format_bytes(self.limit_bytes)} seed {self.seed}"

    def command(self, output: Path) -> list[str]:
        """As users type it, of this repository and in this Python."""
        return [
            *(sys.executable, "-m", "service.cli", "adapt", str(self.dataset.resolve())),
            *("--memory-limit", str(self.limit_bytes), "--seed", str(self.seed)),
            *("--output", str(output), "--json", *self.options),
        ]

    def run(self) -> dict[str, Any]:
        """Its row. Raises CalledProcessError where it fails; it has said why."""
        started, wall_started = seconds_of_children(), time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            answer = subprocess.run(
                self.command(Path(directory) / "job"),
                cwd=_REPOSITORY,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        return {
            **self.row_of(json.loads(answer.splitlines()[-1])),
            "processor_seconds": seconds_of_children() - started,
            "wall_seconds": time.perf_counter() - wall_started,
        }

    def row_of(self, job: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a finished job, as `tinyfit adapt --json` prints it."""
        result = job["result"]
        return {
            "dataset": self.dataset.stem,
            "limit_bytes": self.limit_bytes,
            "seed": self.seed,
            "options": list(self.options),
            # what the job chose, or what it was told to take
            **{name: result.get(name) or job[name] for name in ("supernet", "method")},
            **{
                name: result[name]
                for name in (
                    *("resolution", "test_accuracy", "validation_accuracy"),
                    *("head_only_test_accuracy", "measured_peak_bytes", "predicted_peak_bytes"),
                    *("macs", "trials"),
                )
            },
        }


def main() -> int:
    arguments = _parse_arguments()
    kept = ResultsFile(arguments.results)
    jobs = [
        WholeJob(dataset=dataset, limit_bytes=limit, seed=seed, options=arguments.options)
        for seed in arguments.seeds
        for limit in arguments.limits
        for dataset in arguments.sets
    ]
    failed = [] if arguments.finished else _completed(jobs, kept)
    rows = [kept[job.key()] for job in jobs if job.key() in kept]
    peers = logistic_accuracies(json.loads(arguments.peers.read_text()))
    for limit in arguments.limits:
        if found := [row for row in rows if row["limit_bytes"] == limit]:
            print(f"{format_bytes(limit)}\n\n{table(found, arguments.seeds, peers)}\n")
            if sentence := comparison(found, peers):
                print(sentence, end="\n\n")
    for job in failed:
        print(f"failed: {job.describe()}")
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))
    return 1 if failed else 0


def _completed(jobs: Sequence[WholeJob], kept: ResultsFile) -> list[WholeJob]:
    """Run those that are not there; the ones that failed."""
    failed = []
    missing = [job for job in jobs if job.key() not in kept]
    _say(f"{len(missing)} of {len(jobs)} jobs to do")
    for number, job in enumerate(missing, start=1):
        try:
            row = job.run()
        except subprocess.CalledProcessError as error:
            _say(f"{number:3}. {job.describe()}  ended with status {error.returncode}")
            failed.append(job)
            continue
        kept.put(job.key(), row)
        _say(
            f"{number:3}. {job.describe()}  {100 * row['test_accuracy']:.1f} %, "
            f"{format_bytes(row['measured_peak_bytes'])}, {row['processor_seconds']:.0f} s"
        )
    return failed


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parse_arguments() -> argparse.Namespace:
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", type=Path, required=True, help="zips or folders")
    parser.add_argument("--limits", nargs="+", type=parse_size, default=[24 * 10**6, 6 * 10**6])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--results", type=Path, default=Path("build/jobs.json"), help="file that keeps results"
    )
    parser.add_argument("--peers", type=Path, default=_PEERS, help="results file of the peers")
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args(given[:end])
    arguments.options = tuple(given[end + 1 :])
    for path in (*arguments.sets, arguments.peers):
        if not path.exists():
            parser.error(f"no such file: {str(path)!r}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
