"""The same jobs by two builds in turn: what they take, and what comes out.

    python -m benchmarks.jobs.job_time OLD NEW --sets DATA.zip [DATA.zip ...] [--seeds 0 1 2]
        [--cases LIMIT:SUPERNET ...] [--old-options="..."] [--new-options="..."]
        [--results FILE] [--finished] [--json] [-- OPTION ...]

OLD and NEW are worktrees of the repository. Each set, case and seed is a job of the one, then of
the other, as `tinyfit adapt` of that worktree in a fresh folder, by this Python. Where defaults
differ between the builds, so do the jobs: what decides the work is therefore told to both (those
options after `--`, or else METHOD, TRIALS and so on of build 469376a); what only one build knows,
to that one.

Prints by set and case, as means over the seeds: seconds of the clock, of the processor (of all
processes together), test accuracy, the allocator's peak in the final training, and the most memory
that all processes of the job had together (their shares of pages that they share add up to one
page; looked at five times a second, on Linux alone). Ratios are of the new build to the old one;
they mean something on idle cores only.

Finished jobs are kept in --results, by the builds' commits: a command that was stopped goes on
where it is run again. Commit before, and delete the file after a change that you did not.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.jobs.job_time_tables import tables
from benchmarks.jobs.process_memory import MemoryWatch
from benchmarks.jobs.processor_time import seconds_of_children
from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import content_digest, digest_of
from tinytl.units import format_bytes, parse_size

_BUILDS = ("old", "new")
_CASES = (
    "24MB:ofa_proxyless_d234_e346_k357_w0.75_tinyimagenet",
    "6MB:ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet",
)
_OPTIONS = (
    *("--method", "lite_residual+bias", "--resolutions", "48,64,80,96"),
    *("--trials", "48", "--adapt-steps", "400", "--epochs", "10"),
)


@dataclass(frozen=True, kw_only=True)
class Build:
    """A worktree. options: of `tinyfit adapt`, that this build alone is told."""

    name: str
    path: Path
    options: tuple[str, ...]

    @property
    def commit(self) -> str:
        """Raises CalledProcessError where the path is no worktree."""
        command = ["git", "-C", str(self.path), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True, kw_only=True)
class TimedJob:
    """A job of one build. options: those of both builds."""

    build: Build
    dataset: Path
    limit_bytes: int
    supernet: str
    seed: int
    options: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the job by everything that decides its outcome."""
        decisive = [content_digest(self.dataset), self.build.options, self.options, self.supernet]
        digest = digest_of([self.build.commit, *decisive])
        return f"{self.build.name} {self.dataset.stem} {self.limit_bytes} {self.seed} {digest}"

    def describe(self) -> str:
        limit = format_bytes(self.limit_bytes)
        return f"{self.build.name}: {self.dataset.stem}, {limit}, seed {self.seed}"

    def run(self) -> dict[str, Any]:
        """Its row. Raises CalledProcessError where it fails; it has said why."""
        processor_started, started = seconds_of_children(), time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            command = self._command(Path(directory) / "job")
            with (
                subprocess.Popen(
                    command,
                    cwd=self.build.path,
                    env={**os.environ, "PYTHONPATH": str(self.build.path)},
                    stdout=subprocess.PIPE,
                    text=True,
                ) as process,
                MemoryWatch(process.pid) as watch,
            ):
                answer, _ = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
            wall_seconds = time.perf_counter() - started
        result = json.loads(answer.splitlines()[-1])["result"]
        return {
            "build": self.build.name,
            "commit": self.build.commit,
            "dataset": self.dataset.stem,
            "limit_bytes": self.limit_bytes,
            "supernet": self.supernet,
            "seed": self.seed,
            "wall_seconds": wall_seconds,
            "processor_seconds": seconds_of_children() - processor_started,
            "memory_bytes": watch.peak_bytes,
            **{
                name: result[name]
                for name in ("test_accuracy", "head_only_test_accuracy", "measured_peak_bytes")
            },
            "trained_by": result.get("trained_by"),
        }

    def _command(self, output: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "service.cli", "adapt", str(self.dataset.resolve())),
            *("--memory-limit", str(self.limit_bytes), "--supernet", self.supernet),
            *("--seed", str(self.seed), "--output", str(output), "--json"),
            *(*self.options, *self.build.options),
        ]


def main() -> int:
    arguments = _parse_arguments()
    kept = ResultsFile(arguments.results)
    jobs = [
        TimedJob(
            build=build,
            dataset=dataset,
            limit_bytes=limit,
            supernet=supernet,
            seed=seed,
            options=arguments.options,
        )
        for seed in arguments.seeds
        for limit, supernet in arguments.cases
        for dataset in arguments.sets
        for build in arguments.builds
    ]
    failed = [] if arguments.finished else _completed(jobs, kept)
    rows = [kept[job.key] for job in jobs if job.key in kept]
    print(tables(rows))
    for job in failed:
        print(f"failed: {job.describe()}")
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))
    return 1 if failed else 0


def _completed(jobs: Sequence[TimedJob], kept: ResultsFile) -> list[TimedJob]:
    """Run those that are not there; the ones that failed."""
    failed = []
    missing = [job for job in jobs if job.key not in kept]
    _say(f"{len(missing)} of {len(jobs)} jobs to do")
    for number, job in enumerate(missing, start=1):
        try:
            row = job.run()
        except subprocess.CalledProcessError as error:
            _say(f"{number:3}. {job.describe()}  ended with status {error.returncode}")
            failed.append(job)
            continue
        kept.put(job.key, row)
        _say(
            f"{number:3}. {job.describe()}  {100 * row['test_accuracy']:.1f} %, "
            f"{row['wall_seconds']:.0f} s, {row['processor_seconds']:.0f} s of the processor"
        )
    return failed


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _case(text: str) -> tuple[int, str]:
    limit, colon, supernet = text.partition(":")
    if not colon or not supernet:
        raise argparse.ArgumentTypeError(f"must be LIMIT:SUPERNET but is {text!r}")
    return parse_size(limit), supernet


def _parse_arguments() -> argparse.Namespace:
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in _BUILDS:
        parser.add_argument(name, type=Path, help="a worktree")
        parser.add_argument(
            f"--{name}-options", type=shlex.split, default=[], help="for this build alone"
        )
    parser.add_argument("--sets", nargs="+", type=Path, required=True, help="zips or folders")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--cases",
        nargs="+",
        type=_case,
        default=[_case(text) for text in _CASES],
        metavar="LIMIT:SUPERNET",
    )
    parser.add_argument(
        "--results", type=Path, default=Path("build/job_time.json"), help="file that keeps results"
    )
    parser.add_argument("--finished", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args(given[:end])
    arguments.options = tuple(given[end + 1 :]) or _OPTIONS
    for path in (*arguments.sets, *(getattr(arguments, name) for name in _BUILDS)):
        if not path.exists():
            parser.error(f"no such file: {str(path)!r}")
    arguments.builds = [
        Build(
            name=name,
            path=getattr(arguments, name).resolve(),
            options=tuple(getattr(arguments, f"{name}_options")),
        )
        for name in _BUILDS
    ]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
