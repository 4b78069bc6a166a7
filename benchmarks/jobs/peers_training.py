"""A peer: training all of the network in stock PyTorch, and what memory that takes.

`python -m benchmarks.jobs.peers_training` reads a request as JSON from standard input and
prints one JSON line: a fresh process, so that resident memory starts clean.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import Parameter

from benchmarks.jobs.lite0 import normalize, pretrained_network
from benchmarks.shared.runs import Outcome
from tinytl.description.plan import Plan
from tinytl.measurement.measure import random_store, run_in_fresh_process
from tinytl.measurement.tracker import allocator_peak_bytes, resident_memory
from tinytl.training.data import ImageSplit, ImageStore
from tinytl.training.train import TrainSettings

OPTIMIZERS: dict[str, Callable[[Iterable[Parameter], float], torch.optim.Optimizer]] = {
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, rate),
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9),
}
NORMS = ("frozen", "trained")
_REPOSITORY = Path(__file__).parents[2]
_MEASURED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How all of the network is trained; crops, smoothing and schedule are a job's.

    norm: "frozen" keeps the statistics of batch norm as they were shipped, "trained" takes each
    batch's own; scales and shifts are trained either way.
    """

    optimizer: str
    learning_rate: float
    norm: str
    resolution: int
    epochs: int
    batch_size: int

    def describe(self) -> str:
        return f"{self.optimizer} {self.learning_rate:g}, norms {self.norm}"


@dataclass(frozen=True, kw_only=True)
class StockMemory:
    """Of three steps and a validation: the peak of torch's allocator, weights, gradients and
    moments included; resident memory of the whole process at its peak, and how far it rose from
    when the network was there. The images are outside both peaks, on disk."""

    allocator_peak_bytes: int
    process_peak_bytes: int | None
    rss_growth_bytes: int | None


def train_run(store: ImageStore, recipe: Recipe, seed: int) -> Outcome:
    """Train on the store's images. The seed decides head, dropout, order and augmentation."""
    started = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = pretrained_network(store.num_classes)
        train_loss = fine_tune(network, store, recipe, seed)
    seconds = time.process_time() - started
    validation_accuracy, test_accuracy = (
        accuracy(network, store.split(split), recipe) for split in ("val", "test")
    )
    return Outcome(
        num_classes=store.num_classes,
        test_accuracy=test_accuracy,
        validation_accuracy=validation_accuracy,
        train_loss=train_loss,
        seconds=seconds,
    )


def fine_tune(network: nn.Module, store: ImageStore, recipe: Recipe, seed: int) -> float:
    """Train the network in place; the mean loss of the last epoch."""
    split, job = store.split("train"), TrainSettings()
    steps = math.ceil(len(split) / recipe.batch_size)
    optimizer = OPTIMIZERS[recipe.optimizer](network.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    for epoch in range(recipe.epochs):
        network.train()
        if recipe.norm == "frozen":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        total_loss = 0.0
        order = np.random.default_rng([seed, epoch]).permutation(len(split)).tolist()
        for start in range(0, len(order), recipe.batch_size):
            indices = order[start : start + recipe.batch_size]
            images = split.augmented_batch(
                indices, recipe.resolution, job.augmentation, (seed, epoch)
            )
            loss = F.cross_entropy(
                network(normalize(images)),
                split.labels_of(indices),
                label_smoothing=job.label_smoothing,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total_loss += loss.item() * len(indices)
    return total_loss / len(split)


@torch.no_grad()
def accuracy(network: nn.Module, split: ImageSplit, recipe: Recipe) -> float:
    """Top-1, from 0 to 1, on whole images."""
    network.eval()
    num_right = 0
    for start in range(0, len(split), recipe.batch_size):
        indices = range(start, min(start + recipe.batch_size, len(split)))
        logits = network(normalize(split.batch(indices, recipe.resolution)))
        num_right += int((logits.argmax(1) == split.labels_of(indices)).sum())
    return num_right / len(split)


def measure_in_fresh_process(recipe: Recipe, num_classes: int) -> StockMemory:
    """Raises TinyTLError where the process fails."""
    request = {"recipe": asdict(recipe), "num_classes": num_classes}
    answer = run_in_fresh_process("benchmarks.jobs.peers_training", request, directory=_REPOSITORY)
    return StockMemory(**answer)


def measure(recipe: Recipe, num_classes: int, directory: Path) -> StockMemory:
    """Train on random images, kept in directory: memory does not depend on pixels."""
    short = replace(recipe, epochs=1)
    network = pretrained_network(num_classes)
    plan = Plan.whole(recipe.batch_size)
    store = random_store(num_classes, recipe.resolution, _MEASURED_STEPS, plan, directory)

    def run() -> None:
        fine_tune(network, store, short, seed=0)
        accuracy(network, store.split("val"), short)
        network.zero_grad()  # what is alive before a run counts: of gradients the next has its own

    # resident memory first: the instruments take memory of their own
    resident = resident_memory(run)
    return StockMemory(
        allocator_peak_bytes=allocator_peak_bytes(run),
        process_peak_bytes=None if resident is None else resident.process_peak_bytes,
        rss_growth_bytes=None if resident is None else resident.growth_bytes,
    )


def main() -> None:
    """Answer one request: JSON on standard input, JSON on standard output."""
    request: dict[str, Any] = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as directory:
        memory = measure(Recipe(**request["recipe"]), request["num_classes"], Path(directory))
    sys.stdout.write(json.dumps(asdict(memory)) + "\n")


if __name__ == "__main__":
    main()
