"""What a user would do instead, on the same images, from the same ImageNet weights.

    python -m benchmarks.jobs.peers DATA.zip [DATA.zip ...] [--peers logistic] [--json]

Two peers, both of EfficientNet-Lite0 as its packages give it:

- logistic: logistic regression on frozen features, standardized. The resolution and C,
  scikit-learn's inverse strength of the penalty, are the best on validation images; fitted again
  on training and validation images together.
- training: all of the network trained in stock PyTorch for as many epochs as a job trains, with a
  job's augmentation, label smoothing and schedule. The best recipe on validation images is taken.
  Its memory is measured in a fresh process.

Splits are those that a job of the same seed makes, and each image is decoded as a job decodes it.
The test images choose nothing.

What is finished is kept in --results: a command that was stopped goes on where it is run again.
Delete the file after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np

from benchmarks.jobs.lite0 import frozen_features, weights_path
from benchmarks.jobs.peers_logistic import Images, best_of, refitted_accuracy, tried
from benchmarks.jobs.peers_tables import logistic_table, training_table
from benchmarks.jobs.peers_training import (
    NORMS,
    OPTIMIZERS,
    Recipe,
    measure_in_fresh_process,
    train_run,
)
from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import content_digest, digest_of, unpacked_samples
from tinytl.training.data import ImageStore, Sample, ingest, split_samples

LOGISTIC, TRAINING, MEMORY = "logistic", "training", "memory"
"""Kinds of results."""

_DEFAULT_RECIPES = ("adam:0.001", "adam:0.0001", "sgd:0.01", "sgd:0.001")


def main() -> None:
    arguments = _parse_arguments()
    kept = ResultsFile(arguments.results)
    rows: list[dict[str, Any]] = []
    for path in arguments.datasets:
        with ExitStack() as stack:
            dataset = Dataset(path, stack)
            for seed in range(arguments.seeds):
                if LOGISTIC in arguments.peers:
                    rows.append(_logistic(kept, dataset, seed, arguments))
                if TRAINING in arguments.peers:
                    rows.append(_training(kept, dataset, seed, arguments))
    for peer, table in ((LOGISTIC, logistic_table), (TRAINING, training_table)):
        if found := [row for row in rows if row["peer"] == peer]:
            print(table(found), end="\n\n")
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


@dataclass
class Dataset:
    """A zip or folder, unpacked when its images are first asked for, until the stack ends."""

    path: Path
    stack: ExitStack

    @cached_property
    def directory(self) -> Path:
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory()))

    @cached_property
    def _unpacked(self) -> tuple[list[Sample], tuple[str, ...]]:
        samples, classes = self.stack.enter_context(
            unpacked_samples(self.path, self.directory / "unpacked")
        )
        return sorted(samples, key=lambda sample: str(sample.path)), classes

    def samples(self, seed: int) -> list[Sample]:
        """By path, split as a job of this seed splits them."""
        return split_samples(self._unpacked[0], seed=seed)

    def store(self, seed: int, resolution: int) -> ImageStore:
        """Its images, decoded."""
        directory = self.directory / f"{seed}_{resolution}"
        if not directory.exists():
            ingest(self.samples(seed), self._unpacked[1], directory, image_size=resolution)
        return ImageStore.open(directory)


def _logistic(
    kept: ResultsFile, dataset: Dataset, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    decisive = [arguments.resolutions, arguments.inverse_penalties]
    key = _key(LOGISTIC, dataset, seed, decisive)
    if key not in kept:
        samples = dataset.samples(seed)
        features = {
            resolution: frozen_features(dataset.path, samples, resolution, arguments.features)
            for resolution in arguments.resolutions
        }
        images = Images(
            features=features,
            labels=np.array([sample.label for sample in samples]),
            splits=[sample.split for sample in samples],
        )
        started = time.process_time()
        found = tried(images, arguments.resolutions, arguments.inverse_penalties)
        chosen = best_of(found)
        row = {
            **_row(LOGISTIC, dataset, seed),
            "resolution": chosen.resolution,
            "inverse_penalty": chosen.inverse_penalty,
            "validation_accuracy": chosen.accuracy,
            "test_accuracy": refitted_accuracy(images, chosen),
            "seconds": time.process_time() - started,
            "tried": [asdict(each) for each in found],
        }
        kept.put(key, row)
        _say(row)
    return dict(kept[key])


def _training(
    kept: ResultsFile, dataset: Dataset, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The row of the recipe that is best on validation images, with its memory."""
    rows = [_trained(kept, dataset, seed, recipe) for recipe in _recipes(arguments)]
    chosen = max(rows, key=lambda row: (row["validation_accuracy"], -row["train_loss"]))
    recipe, num_classes = Recipe(**chosen["recipe"]), chosen["num_classes"]
    alike = {**asdict(recipe), "epochs": None, "learning_rate": None}
    key = f"{MEMORY} {num_classes} {digest_of(alike)}"
    if key not in kept:
        memory = measure_in_fresh_process(recipe, num_classes)
        kept.put(key, {"peer": MEMORY, "num_classes": num_classes, **asdict(memory)})
    return {**chosen, "memory": kept[key]}


def _trained(kept: ResultsFile, dataset: Dataset, seed: int, recipe: Recipe) -> dict[str, Any]:
    key = _key(TRAINING, dataset, seed, asdict(recipe))
    if key not in kept:
        outcome = train_run(dataset.store(seed, recipe.resolution), recipe, seed)
        row = {**_row(TRAINING, dataset, seed), "recipe": asdict(recipe), **asdict(outcome)}
        kept.put(key, row)
        _say(row)
    return dict(kept[key])


def _recipes(arguments: argparse.Namespace) -> Iterator[Recipe]:
    for optimizer, rate in arguments.recipes:
        for norm in arguments.norms:
            yield Recipe(
                optimizer=optimizer,
                learning_rate=rate,
                norm=norm,
                resolution=arguments.training_resolution,
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
            )


def _key(peer: str, dataset: Dataset, seed: int, decisive: Any) -> str:
    """Names a result by everything that decides it, but the code."""
    digests = [content_digest(dataset.path), content_digest(weights_path())]
    return f"{dataset.path.stem} {peer} {seed} {digest_of([*digests, decisive])}"


def _row(peer: str, dataset: Dataset, seed: int) -> dict[str, Any]:
    return {"peer": peer, "dataset": dataset.path.stem, "seed": seed}


def _say(row: dict[str, Any]) -> None:
    recipe = f" {Recipe(**row['recipe']).describe()}" if "recipe" in row else ""
    print(
        f"{row['dataset']} {row['peer']}{recipe} seed {row['seed']}: "
        f"{100 * row['test_accuracy']:.1f} %, {row['seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--peers", nargs="+", choices=(LOGISTIC, TRAINING))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[96, 160, 224])
    parser.add_argument(
        "--inverse-penalties",
        nargs="+",
        type=float,
        metavar="C",
        default=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0],
    )
    parser.add_argument(
        "--features", type=Path, default=Path("build/features"), help="folder that keeps them"
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        type=_recipe,
        metavar="OPTIMIZER:RATE",
        default=[_recipe(text) for text in _DEFAULT_RECIPES],
        help=f"optimizers are {', '.join(OPTIMIZERS)}",
    )
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS))
    parser.add_argument("--training-resolution", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--results", type=Path, default=Path("build/peers.json"), help="file that keeps results"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    arguments.peers = arguments.peers or [LOGISTIC, TRAINING]
    try:
        weights_path()
    except ImportError as error:
        parser.error(f"{error}: pip install -e '.[demo,dev]'")
    return arguments


def _recipe(text: str) -> tuple[str, float]:
    optimizer, _, rate = text.partition(":")
    try:
        if optimizer in OPTIMIZERS and float(rate) > 0:
            return optimizer, float(rate)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"a recipe must read like adam:0.001 but got {text!r}")


if __name__ == "__main__":
    main()
