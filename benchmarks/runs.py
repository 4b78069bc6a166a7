"""Trainings on real datasets: one subnet, one budget, the outcomes kept in a file.

The subnet is the supernet's middle one (kernel 5, expand ratio 4, depth 3), not adapted before:
each run starts from the pretrained weights with recalibrated norm statistics, fresh lite
residuals and a fresh head.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.adapted import AdaptedSupernet
from search.space import Candidate
from search.supernet import load_supernet
from service.datasets.store import import_dataset, stored_images
from service.record.database import Database, ensure_schema
from service.settings import Settings
from tinytl.config import LiteResidualSize
from tinytl.data import ImageStore, Sample, ingest, split_samples
from tinytl.network import build_network
from tinytl.plan import Plan
from tinytl.train import DEFAULT_LEARNING_RATES, TrainSettings, evaluate, train
from tinytl.trainable import Method

_EVALUATION_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all runs of a comparison share; learning_rate None takes the method's own."""

    supernet: str
    resolution: int
    epochs: int
    learning_rate: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training. dataset: a zip, or a folder of class folders."""

    dataset: Path
    method: Method
    plan: Plan
    seed: int
    budget: Budget

    def key(self) -> str:
        """Names the run by everything that decides its outcome, but the code."""
        path = self.dataset
        content = path.read_bytes() if path.is_file() else str(path.resolve()).encode()
        decisive = {
            **asdict(self.budget),
            "dataset": hashlib.sha256(content).hexdigest(),
            "learning_rate": self.budget.learning_rate or DEFAULT_LEARNING_RATES[self.method],
            "plan": asdict(self.plan),
        }
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return f"{path.stem} {self.method.value} {self.seed} {digest}"

    def describe(self) -> str:
        plan = self.plan
        return (
            f"{self.dataset.stem:<16}{self.method.value:<20}"
            f"{plan.optimizer_bits}/{plan.trained_bits}  seed {self.seed}"
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to: accuracies between 0 and 1, train_loss of the last epoch."""

    test_accuracy: float
    validation_accuracy: float
    train_loss: float
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every comparison takes."""
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--supernet", default="ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet64")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, help="instead of each method's own")
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0 on")
    parser.add_argument("--results", type=Path, help="file that keeps finished runs")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def budget_of(arguments: argparse.Namespace) -> Budget:
    return Budget(
        supernet=arguments.supernet,
        resolution=arguments.resolution,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
    )


def complete(runs: Iterable[Run], results: Path | None) -> dict[Run, Outcome]:
    """The outcomes of all runs; those that the results file holds are not repeated."""
    kept: dict[str, Any] = {}
    if results is not None and results.exists():
        kept = json.loads(results.read_text())
    outcomes = {}
    by_dataset: dict[Path, list[Run]] = {}
    for run in runs:
        by_dataset.setdefault(run.dataset, []).append(run)
    for dataset, its_runs in by_dataset.items():
        with tempfile.TemporaryDirectory() as directory:
            store = None
            for run in its_runs:
                key = run.key()
                if key not in kept:
                    resolution = run.budget.resolution
                    store = store or _open_store(dataset, Path(directory), resolution)
                    kept[key] = asdict(_train(run, store))
                    _save(results, kept)
                outcomes[run] = Outcome(**kept[key])
                _report(run, outcomes[run])
    return outcomes


def _report(run: Run, outcome: Outcome) -> None:
    accuracy = f"{100 * outcome.test_accuracy:5.1f} %"
    line = f"{run.describe()}  {accuracy}  {outcome.seconds:5.0f} s"
    print(line, file=sys.stderr, flush=True)


def _save(results: Path | None, kept: Mapping[str, Any]) -> None:
    if results is not None:
        partial = results.with_suffix(".partial")
        partial.write_text(json.dumps(kept, indent=1))
        partial.replace(results)


def _open_store(path: Path, directory: Path, image_size: int) -> ImageStore:
    settings = Settings(data_dir=directory)
    ensure_schema(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    try:
        dataset, _ = import_dataset(path, settings=settings, database=database)
    finally:
        database.close()
    images = stored_images(dataset.id, settings)
    samples = [Sample(path=i.path, label=i.label, split=i.split) for i in images]
    target = directory / "images"
    ingest(split_samples(samples, seed=0), dataset.classes, target, image_size=image_size)
    return ImageStore.open(target)


def _train(run: Run, store: ImageStore) -> Outcome:
    budget = run.budget
    supernet = load_supernet(budget.supernet, Settings().supernet_cache_dir.expanduser())
    candidate = Candidate(
        subnet=supernet.spec.uniform(5, 4, 3),
        resolution=budget.resolution,
        lite_residual=LiteResidualSize(),
        plan=run.plan,
    )
    fresh = AdaptedSupernet.fresh(supernet, store.num_classes, method=run.method, seed=run.seed)
    config, weights = fresh.subnet_weights(candidate, store)
    network = build_network(config, run.method, weights)
    started = time.perf_counter()
    history = train(
        network,
        store,
        resolution=budget.resolution,
        plan=run.plan,
        settings=TrainSettings(
            epochs=budget.epochs, learning_rate=budget.learning_rate, seed=run.seed
        ),
    )
    seconds = time.perf_counter() - started
    test_accuracy = evaluate(
        network,
        store.split("test"),
        resolution=budget.resolution,
        batch_size=_EVALUATION_BATCH,
    )
    return Outcome(
        test_accuracy=test_accuracy,
        validation_accuracy=history[-1].val_accuracy,
        train_loss=history[-1].train_loss,
        seconds=seconds,
    )
