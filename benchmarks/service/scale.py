"""What more workers bring: scorings a second and how long a job takes, in processes and on Ray.

    python -m benchmarks.service.scale [--workers 1 2 4] [--postgresql URL] [--json]

The workload is fixed: scikit-learn's handwritten digits, the bundled supernet adapted in a few
steps, 48 candidates drawn at random, scored on every validation image in one thread each. Pools
are the job's own process, processes of this machine, and a Ray cluster on it with as many nodes of
one processor each, which listens on the loopback address only. Each pool is measured in a process
of its own, once its processes are up and have opened what tasks share:

- scorings a second, all candidates given at once;
- overhead: seconds that the driver is busy with a task that does nothing;
- makespan: seconds of a whole `tinyfit adapt` of 16 trials and 2 epochs, start to end.

Writes a second are those of scored trials, as jobs at work record them, by 8 connections over the
SQLite file or the server at URL. From these constants follows, on paper, what more processors
would do: the last table says how, and what stops them. No GPU is measured, as scoring has no use
for them; one that scores f times as fast meets each limit with an f-th of the number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.service.record_rows import fill, new_database
from benchmarks.service.scale_pools import KINDS, Row, digits_space, measure
from benchmarks.shared.machine import describe_machine
from search.space.bulk_pricing import BulkPricing
from search.study.study import BATCH_SIZE, Study
from service.record.claims import add_trial, claim_job
from service.record.db.database import Database, now
from service.record.db.models import Trial
from tinytl.description.method import Method

_NUM_PROPOSED = 48
_NUM_WRITES = 400
_NUM_CONNECTIONS = 8
_PROCESSORS = (1, 4, 16, 64, 256, 1000)


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What scaling goes by. proposing_seconds: of a batch, in the driver. overhead_seconds: of a
    task, likewise.
    """

    scoring_seconds: float
    proposing_seconds: float
    overhead_seconds: float
    writes_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--postgresql", metavar="URL", help="of a server to write trials to")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    rows = []
    for kind in KINDS:
        for workers in arguments.workers if kind != "own process" else [1]:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                rows.append(apart.submit(measure, kind, workers).result())
            print(rows[-1], file=sys.stderr, flush=True)
    constants = Constants(
        scoring_seconds=1 / rows[0].scorings_per_second,
        proposing_seconds=proposing_seconds(),
        overhead_seconds=max(row.overhead_seconds for row in rows if row.pool == "Ray"),
        writes_per_second=writes_per_second(arguments.postgresql),
    )
    for line in (*table(rows), *on_paper(constants)):
        print(line)
    if arguments.json:
        found = {
            "machine": describe_machine(),
            "rows": [asdict(row) for row in rows],
            "constants": asdict(constants),
            "on_paper": [asdict(paper(constants, number)) for number in _PROCESSORS],
        }
        print(json.dumps(found))


def proposing_seconds() -> float:
    """Of a batch, the mean over a search of a job's usual number of trials."""
    space = digits_space()
    pricing = BulkPricing(space, Method.LITE_RESIDUAL_BIAS, 10)
    study = Study(space, pricing, limit_bytes=6_000_000, chance=0.1, seed=0)
    rng = random.Random(0)
    seconds = 0.0
    for _ in range(0, _NUM_PROPOSED, BATCH_SIZE):
        started = time.perf_counter()
        batch = study.ask(BATCH_SIZE)
        seconds += time.perf_counter() - started
        for proposal in batch:
            study.tell(proposal.number, rng.random())
    return seconds * BATCH_SIZE / _NUM_PROPOSED


def writes_per_second(postgresql: str | None) -> float:
    """Of scored trials, by as many workers as there are connections, each at its own job."""
    with _database(postgresql) as url:
        database = Database(url)
        database.upgrade()
        fill(database, num_jobs=100, num_queued=_NUM_CONNECTIONS)
        with ThreadPoolExecutor(_NUM_CONNECTIONS) as threads:
            started = time.perf_counter()
            list(threads.map(partial(_write_trials, url), range(_NUM_CONNECTIONS)))
            seconds = time.perf_counter() - started
        database.close()
    return _NUM_WRITES / seconds


@contextmanager
def _database(postgresql: str | None) -> Iterator[str]:
    if postgresql is not None:
        with new_database(postgresql) as url:
            yield url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/tinyfit.db"


def _write_trials(url: str, number: int) -> None:
    database = Database(url)
    claim = claim_job(database, worker=f"w{number}", lease_seconds=600, max_lost_attempts=3)
    assert claim is not None
    for trial in range(_NUM_WRITES // _NUM_CONNECTIONS):
        row = Trial(
            job_id=claim.job_id,
            number=trial,
            candidate={"resolution": 48},
            predicted_peak_bytes=5_000_000,
            lean_peak_bytes=5_000_000,
            macs=10_000_000,
            accuracy=0.5,
            num_images=400,
            correct=bytes(50),
            is_complete=True,
            reused=False,
            seconds=1.0,
            attempt=claim.attempt,
            finished_at=now(),
        )
        add_trial(database, claim, row)
    database.close()


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| pool | workers | scorings a second | overhead a task, ms | makespan, s |"
    yield "|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row.pool} | {row.workers} | {row.scorings_per_second:.1f} | "
            f"{1000 * row.overhead_seconds:.1f} | {row.makespan_seconds:.1f} |"
        )


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What so many processors would do, all of them scoring for jobs that search."""

    processors: int
    jobs: int
    """At work at the same time: one keeps at most a batch of processors busy."""
    busy: float
    """Share of the time that a processor scores."""
    scorings_per_second: float
    database_load: float
    """Trials to write over those that the database can; 1 is where it stops."""


def paper(constants: Constants, processors: int) -> Paper:
    """A batch is proposed, given out, scored side by side, and written down, one after the other;
    jobs do not wait for each other but at the database.
    """
    each = min(processors, BATCH_SIZE)
    driver = (
        constants.proposing_seconds
        + BATCH_SIZE * constants.overhead_seconds
        + BATCH_SIZE / constants.writes_per_second
    )
    scoring = constants.scoring_seconds * BATCH_SIZE / each
    busy = scoring / (scoring + driver)
    wanted = processors * busy / constants.scoring_seconds
    return Paper(
        processors=processors,
        jobs=-(-processors // each),
        busy=busy,
        scorings_per_second=min(wanted, constants.writes_per_second),
        database_load=wanted / constants.writes_per_second,
    )


def on_paper(constants: Constants) -> Iterator[str]:
    yield ""
    yield (
        f"Measured: {constants.scoring_seconds:.3f} s to score, "
        f"{constants.proposing_seconds:.3f} s to propose a batch of {BATCH_SIZE}, "
        f"{1000 * constants.overhead_seconds:.1f} ms of the driver for a task on Ray, "
        f"{constants.writes_per_second:.0f} trials written a second."
    )
    yield ""
    yield "| processors | jobs side by side | busy | scorings a second | load of the database |"
    yield "|---|---|---|---|---|"
    for number in _PROCESSORS:
        row = paper(constants, number)
        yield (
            f"| {row.processors} | {row.jobs} | {row.busy:.0%} | {row.scorings_per_second:.0f} | "
            f"{row.database_load:.0%} |"
        )


if __name__ == "__main__":
    main()
