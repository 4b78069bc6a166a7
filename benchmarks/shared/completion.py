"""Runs carried out side by side and measured; what is finished is kept in a file."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.shared.runs import Outcome, Run, digest_of, ingest_dataset, train_run
from search.pretraining.processes import end_with_parent
from search.space.pricing import network_of
from tinytl.description.config import NetworkConfig
from tinytl.description.ofa_format import to_ofa
from tinytl.measurement.measure import Measurement, measure_in_fresh_process
from tinytl.training.checkpoint import atomic_write


class ResultsFile:
    """JSON objects by key, on disk as soon as they are put; path None keeps them in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[str, Any] = {}
        if path is not None and path.exists():
            self._kept = json.loads(path.read_text())

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __getitem__(self, key: str) -> Any:
        return self._kept[key]

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        self._kept[key] = value
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as partial:
                partial.write_text(json.dumps(self._kept, indent=1))


def complete(
    runs: Iterable[Run], results: Path | None = None, processes: int = 1
) -> dict[Run, Outcome]:
    """The outcomes of all runs, so many at a time; those that results holds are not repeated."""
    kept = ResultsFile(results)
    keys = {run: run.key() for run in runs}
    missing = [run for run, key in keys.items() if key not in kept]
    where = f"; what is finished is kept in {results}" if results else ""
    _say(f"{len(missing)} of {len(keys)} runs to do{where}")
    with tempfile.TemporaryDirectory() as directory:
        finished = _trained(missing, Path(directory), processes)
        for number, (run, outcome) in enumerate(finished, start=1):
            kept.put(keys[run], asdict(outcome))
            accuracy = f"{100 * outcome.test_accuracy:5.1f} %"
            _say(f"{number:3}. {run.describe()}  {accuracy}  {outcome.seconds:5.0f} s")
    return {run: Outcome(**kept[key]) for run, key in keys.items()}


def measure(
    runs: Mapping[Run, int], results: Path | None = None, processes: int = 1
) -> dict[Run, Measurement]:
    """What the training of each run takes, given its number of classes; alike ones once."""
    kept = ResultsFile(results)
    keys = {}
    missing: dict[str, tuple[Run, NetworkConfig]] = {}
    for run, num_classes in runs.items():
        network = network_of(run.spec, run.candidate, run.method, num_classes)
        decisive = [to_ofa(network), asdict(run.plan), run.budget.resolution]
        keys[run] = f"measured {run.method.value} {num_classes} {digest_of(decisive)}"
        if keys[run] not in kept:
            missing[keys[run]] = (run, network)
    _say(f"{len(missing)} of {len(set(keys.values()))} trainings to measure")

    def measured(key: str) -> Measurement:
        run, network = missing[key]
        return measure_in_fresh_process(network, run.method, run.plan, run.budget.resolution)

    with ThreadPoolExecutor(processes) as pool:
        for key, measurement in zip(missing, pool.map(measured, missing), strict=True):
            kept.put(key, asdict(measurement))
    return {run: Measurement(**kept[key]) for run, key in keys.items()}


def _trained(
    runs: Sequence[Run], directory: Path, processes: int
) -> Iterator[tuple[Run, Outcome]]:
    """Each run with its outcome, as they get done; images are ingested under directory."""
    stores: dict[tuple[Path, int], Path] = {}

    def store_of(run: Run) -> Path:
        key = (run.dataset, run.budget.resolution)
        if key not in stores:
            stores[key] = ingest_dataset(*key, directory / str(len(stores)))
        return stores[key]

    if processes == 1:
        for run in runs:
            yield run, train_run(run, store_of(run))
        return
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=end_with_parent,
    )
    try:
        futures = {pool.submit(train_run, run, store_of(run)): run for run in runs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
