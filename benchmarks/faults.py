"""Random kills over a queue of short jobs: what becomes of them.

    python -m benchmarks.faults [--database sqlite|postgresql] [--faults 30] [--jobs 12] [--seed 0]
                                [--json]

`tinyfit serve --no-worker` and two `tinyfit worker` processes, in a folder of their own; with
postgresql also a server of their own. Jobs of two kinds, tiny but complete, are posted over HTTP.
Every few seconds something fails, chosen by the seed: kill -9 of a worker, of a job's process or
of the API, a restart of PostgreSQL (half of them as if its machine had failed), a worker that
stands still for longer than its lease and then wakes. What died is started again within a second.

The bar: every job ends with one committed result, its events have no gap, equal jobs have equal
bundles, no process is left, and the jobs' folders hold the bundles and nothing else once a worker
has started again. The exit status is 1 where it does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults_cluster import Cluster
from benchmarks.faults_judge import Judgement, judge
from benchmarks.faults_service import Service, two_classes
from benchmarks.machine import describe_machine

_LEASE_SECONDS = 4.0
_MEAN_GAP_SECONDS = 5.0
_NUM_WORKERS = 2
_LONGEST_SECONDS = 1_800.0
_FINAL = ("succeeded", "failed", "cancelled")


@dataclass(kw_only=True)
class Run:
    """What was done to the service and what came of it."""

    database: str
    seed: int
    num_jobs: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    requests_sent_again: int = 0
    bad_exit_codes: list[int] = field(default_factory=list)
    orphans: int = 0
    judgement: Judgement | None = None

    @property
    def num_faults(self) -> int:
        return sum(self.faults.values())

    @property
    def holds(self) -> bool:
        assert self.judgement is not None
        return self.judgement.holds and not self.orphans and not self.bad_exit_codes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--faults", type=int, default=30, help="how many (30)")
    parser.add_argument("--jobs", type=int, default=12, help="how many at least (12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to leave the log when the bar is missed")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    run = inflict(options.database, options.faults, options.jobs, options.seed, options.keep)
    _print(run)
    if options.json:
        print(json.dumps({"machine": describe_machine(), **asdict(run), "holds": run.holds}))
    return 0 if run.holds else 1


def inflict(
    database: str, num_faults: int, num_jobs: int, seed: int, keep: Path | None = None
) -> Run:
    """So many faults while jobs are at work; more jobs follow while there are faults to come."""
    rng = random.Random(seed)
    run = Run(database=database, seed=seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tinyfit-faults-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL's user has to get to its own folder
        cluster = Cluster(directory / "postgresql") if database == "postgresql" else None
        settings = {
            "TINYFIT_LEASE_SECONDS": str(_LEASE_SECONDS),
            "TINYFIT_POLL_SECONDS": "0.2",
            # By chance a job may be hit more often than any one is in earnest.
            "TINYFIT_MAX_LOST_ATTEMPTS": str(num_faults + 1),
            **({"TINYFIT_DATABASE_URL": cluster.url} if cluster else {}),
        }
        service = Service(directory, settings, num_workers=_NUM_WORKERS, rng=rng)
        try:
            service.upgrade()
            service.keep_up()
            job_ids = _work(service, _Faults(service, cluster, rng), run, num_faults, num_jobs)
            run.requests_sent_again = service.retries
            run.bad_exit_codes = service.stop()
            run.orphans = len(service.orphans())
            url = cluster.url if cluster else f"sqlite:///{service.data_dir / 'tinyfit.db'}"
            run.judgement = judge(url, service.data_dir, job_ids, service.sweep)
            run.num_jobs = len(job_ids)
        finally:
            service.kill_all()
            if cluster is not None:
                cluster.stop()
            log = directory / "log"
            if keep is not None and log.exists():
                keep.write_bytes(log.read_bytes())
    run.seconds = time.monotonic() - started
    return run


class _Faults:
    """What can go wrong; each says whether there was anything for it to hit."""

    def __init__(self, service: Service, cluster: Cluster | None, rng: random.Random) -> None:
        self._service = service
        self._cluster = cluster
        self._rng = rng
        self._asleep: dict[str, float] = {}
        self._kinds: dict[str, Callable[[], bool]] = {
            "worker killed": lambda: service.kill(rng.choice(service.workers)),
            "job's process killed": service.kill_child,
            "API killed": lambda: service.kill("api"),
            "worker asleep": self._put_to_sleep,
        }
        if cluster is not None:
            self._kinds["PostgreSQL restarted"] = self._restart

    def strike(self) -> str | None:
        """Do one of them, and say which; None where it hit nothing."""
        kind = self._rng.choice(list(self._kinds))
        return kind if self._kinds[kind]() else None

    def wake(self, *, everybody: bool = False) -> None:
        """Let those go on who have slept for long enough."""
        for name, until in list(self._asleep.items()):
            if everybody or time.monotonic() >= until:
                self._service.kill(name, signal.SIGCONT)
                del self._asleep[name]

    def _put_to_sleep(self) -> bool:
        name = self._rng.choice(self._service.workers)
        if name in self._asleep or not self._service.kill(name, signal.SIGSTOP):
            return False
        self._asleep[name] = time.monotonic() + 1.5 * _LEASE_SECONDS
        return True

    def _restart(self) -> bool:
        assert self._cluster is not None
        self._cluster.restart(self._rng.choice(("fast", "immediate")))
        return True


def _work(
    service: Service, faults: _Faults, run: Run, num_faults: int, num_jobs: int
) -> dict[str, int]:
    """Ids of the jobs, with the kind of each."""
    archive = {"file": ("shapes.zip", two_classes(), "application/zip")}
    dataset = service.ask("POST", "/datasets", files=archive)["id"]
    kinds: dict[str, int] = {}

    def post() -> None:
        kind = len(kinds) % 2
        job = service.ask(
            "POST",
            "/jobs",
            json=_job(dataset, kind),
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        kinds[job["id"]] = kind

    for _ in range(num_jobs):
        post()
    rng = random.Random(run.seed + 1)
    deadline = time.monotonic() + _LONGEST_SECONDS
    next_fault = time.monotonic() + rng.expovariate(1 / _MEAN_GAP_SECONDS)
    while time.monotonic() < deadline:
        service.keep_up()
        is_striking = run.num_faults < num_faults
        faults.wake(everybody=not is_striking)
        if is_striking and time.monotonic() >= next_fault:
            kind = faults.strike()
            if kind is not None:
                run.faults[kind] = run.faults.get(kind, 0) + 1
                next_fault = time.monotonic() + rng.expovariate(1 / _MEAN_GAP_SECONDS)
                if kind == "API killed":
                    post()  # what was sent to an API that is down is sent again
        waiting = sum(
            job["status"] not in _FINAL
            for job in service.ask("GET", "/jobs", params={"limit": 1_000})
        )
        if is_striking and waiting < _NUM_WORKERS + 1:
            post()
        elif not waiting and not is_striking:
            break
        time.sleep(0.2)
    return kinds


def _job(dataset: str, kind: int) -> dict[str, Any]:
    settings = {
        "trials": 2,
        "epochs": 1,
        "adapt_steps": 4,
        "resolutions": [32],
        "seed": kind,
        "reuse": False,  # so that equal jobs are equal
    }
    return {
        "dataset": dataset,
        "name": f"kind {kind}",
        "memory_limit": "6MB",
        "settings": settings,
    }


def _print(run: Run) -> None:
    assert run.judgement is not None
    rows: list[tuple[str, object]] = [
        ("database", run.database),
        ("seed", run.seed),
        ("seconds", round(run.seconds)),
        *((kind, number) for kind, number in sorted(run.faults.items())),
        ("faults", run.num_faults),
        ("requests sent again", run.requests_sent_again),
        ("jobs posted", run.num_jobs),
        *asdict(run.judgement).items(),
        ("orphan processes", run.orphans),
        ("bad exit codes at the end", run.bad_exit_codes or "none"),
        ("the bar holds", "yes" if run.holds else "NO"),
    ]
    for name, value in rows:
        print(f"{name.replace('_', ' '):<32} {value}")


if __name__ == "__main__":
    sys.exit(main())
