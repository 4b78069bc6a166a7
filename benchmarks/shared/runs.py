"""Trainings on real datasets: one subnet, one budget, everything that decides the outcome named.

The subnet is the supernet's middle one (of ofa's, kernel 5, expand ratio 4, depth 3), not adapted
before: each run starts from the pretrained weights with the statistics that a subnet gets, lite
residuals as the supernet has them, else fresh ones, and a fresh head.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from search.adaptation.adapted import AdaptedSupernet
from search.elastic.supernet import load_supernet
from search.space.architecture import SupernetSpec
from search.space.candidates import Candidate
from search.supernets.registry import DEFAULT_SUPERNET, SupernetFile, locate
from service.datasets.store import import_dataset, unpacked_images
from service.record.db.database import Database, ensure_schema
from service.record.files.blobs import open_blobs
from service.settings import Settings
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.training.data import ImageStore, Sample, ingest, split_samples
from tinytl.training.train import DEFAULT_LEARNING_RATES, TrainSettings, evaluate, train

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
        decisive = {
            **asdict(self.budget),
            "supernet": [self.budget.supernet, content_digest(_locate(self.budget.supernet).path)],
            "dataset": content_digest(self.dataset),
            "learning_rate": self.learning_rate,
            "plan": asdict(self.plan),
        }
        return f"{self.dataset.stem} {self.method.value} {self.seed} {digest_of(decisive)}"

    def describe(self) -> str:
        plan = self.plan
        return (
            f"{self.dataset.stem:<16}{self.method.value:<20}"
            f"{plan.optimizer_bits}/{plan.trained_bits}  "
            f"rate {self.learning_rate:g}  seed {self.seed}"
        )

    @property
    def learning_rate(self) -> float:
        return self.budget.learning_rate or DEFAULT_LEARNING_RATES[self.method]

    @property
    def spec(self) -> SupernetSpec:
        return _locate(self.budget.supernet).spec

    @property
    def candidate(self) -> Candidate:
        return Candidate(
            subnet=self.spec.middle,
            resolution=self.budget.resolution,
            lite_residual=LiteResidualSize(),
            plan=self.plan,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to: accuracies between 0 and 1, train_loss of the last epoch.

    seconds: processor time of the training, in one thread.
    """

    num_classes: int
    test_accuracy: float
    validation_accuracy: float
    train_loss: float
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every comparison takes."""
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--supernet", default=DEFAULT_SUPERNET, help="name or file")
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


def digest_of(decisive: Any) -> str:
    """SHA-256 of a value's JSON."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@lru_cache
def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of all the files of a folder with their names."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        name = str(file.relative_to(path)).encode()
        digest.update(b"%d %s %d " % (len(name), name, file.stat().st_size))
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def unpacked_samples(
    path: Path, directory: Path
) -> Iterator[tuple[list[Sample], tuple[str, ...]]]:
    """The images of a zip or folder as a job finds them, and its classes; files in directory."""
    settings = Settings(data_dir=directory)
    ensure_schema(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    try:
        dataset, _ = import_dataset(path, settings=settings, database=database)
        blobs = open_blobs(settings, database)
        with unpacked_images(dataset, settings, blobs, directory / "dataset") as images:
            samples = [Sample(path=i.path, label=i.label, split=i.split) for i in images]
            yield samples, tuple(dataset.classes)
    finally:
        database.close()


def ingest_dataset(path: Path, image_size: int, directory: Path, *, seed: int = 0) -> Path:
    """Folder, in directory, of an image store of a zip or folder, split as a job of this seed
    splits it: where it has no validation images, a fifth is held out."""
    target = directory / "images"
    with unpacked_samples(path, directory) as (samples, classes):
        ingest(split_samples(samples, seed=seed), classes, target, image_size=image_size)
    return target


def train_run(run: Run, images: Path) -> Outcome:
    """Train on the image store in images. The seed decides head, order and augmentation."""
    budget, store = run.budget, ImageStore.open(images)
    supernet = load_supernet(budget.supernet, _cache_directory())
    fresh = AdaptedSupernet.fresh(supernet, store.num_classes, method=run.method, seed=run.seed)
    config, weights = fresh.subnet_weights(run.candidate, store)
    network = build_network(config, run.method, weights)
    started = time.process_time()
    history = train(
        network,
        store,
        resolution=budget.resolution,
        plan=run.plan,
        settings=TrainSettings(
            epochs=budget.epochs, learning_rate=budget.learning_rate, seed=run.seed
        ),
    )
    seconds = time.process_time() - started
    test_accuracy = evaluate(
        network,
        store.split("test"),
        resolution=budget.resolution,
        batch_size=_EVALUATION_BATCH,
    )
    return Outcome(
        num_classes=store.num_classes,
        test_accuracy=test_accuracy,
        validation_accuracy=history[-1].val_accuracy,
        train_loss=history[-1].train_loss,
        seconds=seconds,
    )


@lru_cache
def _locate(supernet: str) -> SupernetFile:
    return locate(supernet, _cache_directory())


def _cache_directory() -> Path:
    return Settings().supernet_cache_dir.expanduser()
