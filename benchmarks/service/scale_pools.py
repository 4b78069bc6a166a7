"""The pools of a comparison, each measured in a process of its own, over the same workload."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.shared.runs import ingest_dataset
from search.adaptation.adapt import AdaptSettings, adapt
from search.elastic.supernet import load_supernet
from search.space.candidates import Candidate, SearchSpace
from search.supernets.registry import DEFAULT_SUPERNET
from service.demo import export_digits
from service.settings import Settings
from service.work.pools.news import Done, News, Tell
from service.work.pools.pool import OwnProcess, Pool
from service.work.pools.processes import ProcessPool
from service.work.pools.tasks import Parcel, ScoreTask, Shared, Task
from service.work.processes.lifeline import StopCheck
from tests.service.support.ray_cluster import RayCluster
from tinytl.description.config import LiteResidualSize
from tinytl.training.data import ImageStore

KINDS = ("own process", "processes", "Ray")
_RESOLUTIONS = (32, 48)
_ADAPTATION = AdaptSettings(lite_residual_sizes=(LiteResidualSize(),), steps=20)
_NUM_CANDIDATES = 48
_NUM_EMPTY = 200
_JOB = (
    *("--memory-limit", "6MB", "--trials", "16", "--adapt-steps", "20", "--epochs", "2"),
    *("--resolutions", "32,48", "--no-race"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pool, seconds where nothing else is said."""

    pool: str
    workers: int
    scorings_per_second: float
    overhead_seconds: float
    makespan_seconds: float


@dataclass(frozen=True)
class Empty:
    """A task that does nothing."""

    def run(self, shared: Shared, tell: Tell, should_stop: Callable[[], bool]) -> None:
        tell(Done())

    def after(self, news: News) -> Empty:
        return self


@dataclass(frozen=True)
class Nap:
    """A task that takes a second, but no processor."""

    def run(self, shared: Shared, tell: Tell, should_stop: Callable[[], bool]) -> None:
        time.sleep(1)
        tell(Done())

    def after(self, news: News) -> Nap:
        return self


def measure(kind: str, workers: int) -> Row:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        archive = folder / "digits.zip"
        export_digits(archive)
        environment = dict(os.environ)
        cluster = None
        if kind == "processes":
            environment["TINYFIT_POOL_PROCESSES"] = str(workers)
        elif kind == "Ray":
            cluster = RayCluster()
            stack.callback(cluster.close)
            cluster.start(workers)
            environment |= cluster.environment | {"TINYFIT_RAY_ADDRESS": cluster.address}
            os.environ.update(environment)
        makespan_seconds = _adapt_seconds(archive, folder / "out", environment)
        shared, candidates = _workload(archive, folder / "images")
        pool = stack.enter_context(_pool(kind, workers, shared, environment))
        scorings: list[Task] = [
            ScoreTask(candidate=candidate, seed=0, horizontal_flip=False, rivals=())
            for candidate in candidates
        ]
        while _seconds(pool, [Nap()] * (2 * workers)) > 3:  # some processes are not up yet
            if cluster is not None:
                cluster.keep_up()
        _seconds(pool, scorings[: 4 * workers])  # all have opened what is shared
        return Row(
            pool=kind,
            workers=workers,
            scorings_per_second=len(scorings) / _seconds(pool, scorings),
            overhead_seconds=_seconds(pool, [Empty()] * _NUM_EMPTY) / _NUM_EMPTY,
            makespan_seconds=makespan_seconds,
        )


def _adapt_seconds(archive: Path, output: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "service.cli", "adapt", str(archive), *_JOB, "--output", output],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def _workload(archive: Path, folder: Path) -> tuple[Shared, list[Candidate]]:
    store = ImageStore.open(ingest_dataset(archive, _RESOLUTIONS[-1], folder))
    supernet = load_supernet(DEFAULT_SUPERNET, Settings().supernet_cache_dir.expanduser())
    adapted = adapt(supernet, store, _RESOLUTIONS, _ADAPTATION)
    return Shared(store=store, adapted=adapted), _random_candidates(digits_space())


def digits_space() -> SearchSpace:
    supernet = load_supernet(DEFAULT_SUPERNET, Settings().supernet_cache_dir.expanduser())
    return SearchSpace(supernet=supernet.spec, resolutions=_RESOLUTIONS)


def _random_candidates(space: SearchSpace) -> list[Candidate]:
    rng = random.Random(0)
    return [
        space.decode({name: rng.choice(values) for name, values in space.choices().items()})
        for _ in range(_NUM_CANDIDATES)
    ]


def _pool(
    kind: str, workers: int, shared: Shared, environment: dict[str, str]
) -> AbstractContextManager[Pool]:
    never = StopCheck(Event(), lambda: None)
    if kind == "own process":
        return nullcontext(OwnProcess(shared, never))
    if kind == "processes":
        return ProcessPool(workers, Parcel.for_this_machine(shared), never)
    from service.work.pools.cluster import RayPool

    address = environment["TINYFIT_RAY_ADDRESS"]
    return RayPool(address, shared, never, patience_seconds=60)


def _seconds(pool: Pool, tasks: Sequence[Task]) -> float:
    started = time.perf_counter()
    pool.run(tasks, lambda number, news: None)
    return time.perf_counter() - started
