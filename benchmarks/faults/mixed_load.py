"""Random faults over a mixed load of short jobs: what becomes of them.

    python -m benchmarks.faults.mixed_load [--database sqlite|postgresql] [--remote] [--faults 100]
                                [--jobs 12] [--seed 0] [--gap 8] [--keep LOG] [--json]

`tinyfit serve --no-worker` and two `tinyfit worker` processes, in a folder of their own; as root
on a disk of their own, 2 GB in memory; with postgresql also a server of their own and, as root, a
network namespace for each worker; with --remote, in place of the namespaces, a Ray cluster of two
nodes for the jobs' tasks and an S3 server for their artifacts. Jobs of two kinds, tiny but
complete, are posted over HTTP; their owners pause, resume, cancel, retry and delete some. Every
few seconds something fails, chosen by the seed: kill -9 of a worker, of a job's process or of the
API, a restart of PostgreSQL (half of them as if its machine had failed), a worker that stands
still, or whose host is cut off, for longer than its lease, a disk that is full for two seconds, a
Ray node or all of the cluster that dies with everything on it, an S3 server that is away for three
seconds. What died is started again within a second.

The bar: every job that its owner did not delete ends with one committed result, its events have no
gap, equal jobs have equal bundles, no process or task is left, no row of a deleted job, and the
jobs' folders hold the bundles and nothing else once a worker has started again. The exit status is
1 where it does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.faults.cluster import Cluster
from benchmarks.faults.disk import small_disk
from benchmarks.faults.judge import Judgement, judge
from benchmarks.faults.kinds import Faults, all_faults
from benchmarks.faults.network import Host, NoHostsError, new_host
from benchmarks.faults.owners import Owners
from benchmarks.faults.remote import new_remote
from benchmarks.faults.service import Place, Service
from benchmarks.shared.machine import describe_machine
from service.settings import Settings

_LEASE_SECONDS = 4.0
_MEAN_ACTION_SECONDS = 16.0
_NUM_WORKERS = 2
_DISK_BYTES = 2_000_000_000
_LONGEST_SECONDS = 3_600.0


@dataclass(kw_only=True)
class Run:
    """What was done to the service and what came of it."""

    database: str
    is_remote: bool
    seed: int
    mean_gap_seconds: float
    faults: dict[str, int] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
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
    parser.add_argument(
        "--remote", action="store_true", help="tasks on a Ray cluster, artifacts on an S3 server"
    )
    parser.add_argument("--faults", type=int, default=100, help="how many (100)")
    parser.add_argument("--jobs", type=int, default=12, help="how many at least (12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--gap", type=float, default=8.0, metavar="SECONDS", help="between faults, on average (8)"
    )
    parser.add_argument("--keep", type=Path, help="where to leave the log when the bar is missed")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # either ends all that was started
        signal.signal(number, signal.default_int_handler)
    run = inflict(
        options.database,
        options.faults,
        options.jobs,
        options.seed,
        is_remote=options.remote,
        mean_gap_seconds=options.gap,
        keep=options.keep,
    )
    _print(run)
    if options.json:
        print(json.dumps({"machine": describe_machine(), **asdict(run), "holds": run.holds}))
    return 0 if run.holds else 1


def inflict(
    database: str,
    num_faults: int,
    num_jobs: int,
    seed: int,
    *,
    is_remote: bool = False,
    mean_gap_seconds: float = 8.0,
    keep: Path | None = None,
) -> Run:
    """So many faults while jobs are at work; more jobs follow while there are faults to come."""
    rng = random.Random(seed)
    run = Run(database=database, is_remote=is_remote, seed=seed, mean_gap_seconds=mean_gap_seconds)
    started = time.monotonic()
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tinyfit-faults-"))
        )
        directory.chmod(0o755)  # PostgreSQL's user has to get to its own folder
        disk = stack.enter_context(small_disk(directory, num_bytes=_DISK_BYTES))
        hosts = _hosts(stack) if database == "postgresql" and not is_remote else {}
        remote = stack.enter_context(new_remote()) if is_remote else None
        cluster = None
        if database == "postgresql":
            addresses = [host.server for host in hosts.values()]
            cluster = Cluster(directory / "postgresql", addresses)
            stack.callback(cluster.stop)
        settings = {
            "TINYFIT_LEASE_SECONDS": str(_LEASE_SECONDS),
            "TINYFIT_POLL_SECONDS": "0.2",
            "TINYFIT_JOB_NICENESS": "0",  # others' work would leave a job no time between faults
            # By chance a job may be hit more often than any one is in earnest.
            "TINYFIT_MAX_LOST_ATTEMPTS": str(num_faults + 1),
            **({"TINYFIT_DATABASE_URL": cluster.url()} if cluster else {}),
            **(remote.settings if remote else {}),
        }
        places = [_place(cluster, host) for host in hosts.values()] or [Place()] * _NUM_WORKERS
        service = Service(
            directory, settings, data_dir=(disk or directory) / "data", places=places, rng=rng
        )
        stack.callback(_keep_log, service, keep, run)
        stack.callback(service.kill_all)
        service.upgrade()
        service.keep_up()
        faults = all_faults(
            service, cluster, hosts, disk, remote, lease_seconds=_LEASE_SECONDS, rng=rng
        )

        def go_on() -> None:
            """What died starts, and what is over ends, whatever else waits."""
            service.keep_up()
            if remote:
                remote.ray.keep_up()
            faults.end_due()

        service.while_waiting = go_on
        owners = Owners(service, random.Random(seed + 2))
        _work(service, faults, owners, run, num_faults, num_jobs)
        run.owners = dict(owners.actions)
        run.requests_sent_again = service.retries
        run.bad_exit_codes = service.stop()
        run.orphans = len(service.orphans()) + len(remote.ray.task_processes() if remote else ())
        record = Settings(
            data_dir=service.data_dir,
            database_url=cluster.url() if cluster else None,
            artifact_url=remote.artifact_url if remote else None,
        )
        run.judgement = judge(record, owners.kinds, service.sweep)
    run.seconds = time.monotonic() - started
    return run


def _hosts(stack: ExitStack) -> dict[str, Host]:
    """One for each worker; none where this machine lets nobody make any."""
    try:
        return {
            f"worker {number}": stack.enter_context(new_host()) for number in range(_NUM_WORKERS)
        }
    except NoHostsError as error:
        print(f"no worker's host is cut off: {error}", file=sys.stderr)
        return {}


def _place(cluster: Cluster | None, host: Host) -> Place:
    assert cluster is not None
    return Place(prefix=host.prefix, settings={"TINYFIT_DATABASE_URL": cluster.url(host.server)})


def _keep_log(service: Service, keep: Path | None, run: Run) -> None:
    if keep is not None and service.log.exists() and (run.judgement is None or not run.holds):
        keep.write_bytes(service.log.read_bytes())


def _work(
    service: Service, faults: Faults, owners: Owners, run: Run, num_faults: int, num_jobs: int
) -> None:
    """Until all faults have struck, and what is to end has ended."""
    for _ in range(num_jobs):
        owners.post()
    rng = random.Random(run.seed + 1)
    deadline = time.monotonic() + _LONGEST_SECONDS
    next_fault = time.monotonic() + rng.expovariate(1 / run.mean_gap_seconds)
    next_action = time.monotonic() + rng.expovariate(1 / _MEAN_ACTION_SECONDS)
    while time.monotonic() < deadline:
        service.while_waiting()
        is_striking = run.num_faults < num_faults
        if not is_striking:
            faults.end_due(all_of_them=True)
        if is_striking and time.monotonic() >= next_fault:
            kind = faults.strike()
            if kind is not None:
                run.faults[kind] = run.faults.get(kind, 0) + 1
                print(f"{run.num_faults} of {num_faults}: {kind}", file=sys.stderr, flush=True)
                next_fault = time.monotonic() + rng.expovariate(1 / run.mean_gap_seconds)
                if kind == "API killed":
                    owners.post()  # what was sent to an API that is down is sent again
        if is_striking and time.monotonic() >= next_action:
            owners.act()
            next_action = time.monotonic() + rng.expovariate(1 / _MEAN_ACTION_SECONDS)
        waiting = owners.look_after(owners.jobs(), everything=not is_striking)
        if is_striking and waiting < _NUM_WORKERS + 1:
            owners.post()
        elif not waiting and not is_striking:
            return
        time.sleep(0.2)


def _print(run: Run) -> None:
    assert run.judgement is not None
    rows: list[tuple[str, object]] = [
        ("database", run.database),
        ("on a Ray cluster, with an S3 server", "yes" if run.is_remote else "no"),
        ("seed", run.seed),
        ("mean gap, seconds", run.mean_gap_seconds),
        ("seconds", round(run.seconds)),
        *((kind, number) for kind, number in sorted(run.faults.items())),
        ("faults", run.num_faults),
        *((f"jobs {action}", number) for action, number in sorted(run.owners.items())),
        ("requests sent again", run.requests_sent_again),
        *asdict(run.judgement).items(),
        ("orphan processes", run.orphans),
        ("bad exit codes at the end", run.bad_exit_codes or "none"),
        ("the bar holds", "yes" if run.holds else "NO"),
    ]
    for name, value in rows:
        print(f"{name.replace('_', ' '):<32} {value}")


if __name__ == "__main__":
    sys.exit(main())
