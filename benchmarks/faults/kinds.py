"""What can go wrong. A further kind of fault is one more line in `all_faults`."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.faults.cluster import Cluster
from benchmarks.faults.disk import fill_up
from benchmarks.faults.network import Host
from benchmarks.faults.remote import Remote
from benchmarks.faults.service import Service

_FULL_SECONDS = 2.0
_AWAY_SECONDS = 3.0

Strike = Callable[[], bool]
"""Does harm, and says whether there was anything for it to hit."""
Begin = Callable[[], Callable[[], None] | None]
"""Begins to do harm, and returns what ends it; None where it hit nothing."""


class Faults:
    """Kinds of faults, of which one after another strikes at random."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._kinds: dict[str, Strike] = {}
        self._ends: list[tuple[float, Callable[[], None]]] = []

    def add(self, kind: str, strike: Strike) -> None:
        self._kinds[kind] = strike

    def add_lasting(self, kind: str, begin: Begin, seconds: float) -> None:
        """A fault that lasts; others may strike meanwhile."""

        def strike() -> bool:
            end = begin()
            if end is not None:
                self._ends.append((time.monotonic() + seconds, end))
            return end is not None

        self._kinds[kind] = strike

    def strike(self) -> str | None:
        """Do one of them, and say which; None where it hit nothing."""
        kind = self._rng.choice(list(self._kinds))
        return kind if self._kinds[kind]() else None

    def end_due(self, *, all_of_them: bool = False) -> None:
        """End what has lasted for long enough."""
        due = [
            (until, end) for until, end in self._ends if all_of_them or time.monotonic() >= until
        ]
        for found in due:
            self._ends.remove(found)
            found[1]()


def all_faults(
    service: Service,
    cluster: Cluster | None,
    hosts: Mapping[str, Host],
    disk: Path | None,
    remote: Remote | None,
    *,
    lease_seconds: float,
    rng: random.Random,
) -> Faults:
    """hosts: of workers that have one of their own. disk: a file system that may be filled up."""
    faults = Faults(rng)
    faults.add("worker killed", lambda: service.kill(rng.choice(service.workers)))
    faults.add("job's process killed", service.kill_child)
    faults.add("API killed", lambda: service.kill("api"))
    long = 1.5 * lease_seconds
    idle = _Pool(service.workers, rng)
    faults.add_lasting("worker asleep", lambda: _put_to_sleep(service, idle), long)
    if hosts:
        linked = _Pool(list(hosts), rng)
        faults.add_lasting("worker's host cut off", lambda: _cut_off(hosts, linked), long)
    if cluster is not None:
        faults.add("PostgreSQL restarted", lambda: _restart(cluster, rng))
    if disk is not None:
        faults.add_lasting("disk full", lambda: fill_up(disk), _FULL_SECONDS)
    if remote is not None:
        faults.add("Ray node killed", lambda: remote.kill_node(rng))
        faults.add("Ray cluster killed", remote.kill_cluster)
        faults.add_lasting("S3 server away", remote.take_s3_away, _AWAY_SECONDS)
    return faults


class _Pool:
    """Names that a lasting fault may hit: none of them twice at the same time."""

    def __init__(self, names: list[str], rng: random.Random) -> None:
        self._names = list(names)
        self._rng = rng

    def take(self) -> str | None:
        if not self._names:
            return None
        return self._names.pop(self._rng.randrange(len(self._names)))

    def put_back(self, name: str) -> None:
        self._names.append(name)


def _put_to_sleep(service: Service, pool: _Pool) -> Callable[[], None] | None:
    name = pool.take()
    if name is None:
        return None
    if not service.kill(name, signal.SIGSTOP):
        pool.put_back(name)
        return None

    def wake() -> None:
        service.kill(name, signal.SIGCONT)
        pool.put_back(name)

    return wake


def _cut_off(hosts: Mapping[str, Host], pool: _Pool) -> Callable[[], None] | None:
    name = pool.take()
    if name is None:
        return None
    hosts[name].cut()

    def mend() -> None:
        hosts[name].mend()
        pool.put_back(name)

    return mend


def _restart(cluster: Cluster, rng: random.Random) -> bool:
    cluster.restart(rng.choice(("fast", "immediate")))
    return True
