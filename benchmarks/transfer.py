"""Methods side by side on real datasets: same subnet, same budget, test accuracy.

    python -m benchmarks.transfer DATA.zip [DATA.zip ...] [--methods head,lite_residual+bias]

The subnet is the supernet's middle one (kernel 5, expand ratio 4, depth 3), not adapted before:
each method starts from the pretrained weights with recalibrated norm statistics, fresh lite
residuals and a fresh head. Finished runs are kept in --results and not repeated: delete the file
after a change of the code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported

from benchmarks.machine import describe_machine
from search.adapted import AdaptedSupernet
from search.space import Candidate
from search.supernet import Supernet, load_supernet
from service.database import Database, upgrade_embedded
from service.datasets import import_dataset, stored_images
from service.settings import Settings
from tinytl.config import LiteResidualSize
from tinytl.data import ImageStore, Sample, ingest, split_samples
from tinytl.network import build_network
from tinytl.plan import Plan
from tinytl.train import DEFAULT_LEARNING_RATES, TrainSettings, evaluate, train
from tinytl.trainable import Method

_DEFAULT_METHODS = "head,lite_residual+bias"
_EVALUATION_BATCH = 64


def main() -> None:
    arguments = _parse_arguments()
    supernet = load_supernet(arguments.supernet, Settings().supernet_cache_dir.expanduser())
    runs = _load_results(arguments.results)
    for path in arguments.datasets:
        with tempfile.TemporaryDirectory() as directory:
            store = None
            for seed in range(arguments.seeds):
                for method in arguments.methods:
                    key = _key(path, method, seed, arguments)
                    if key not in runs:
                        store = store or _open_store(path, Path(directory), arguments.resolution)
                        runs[key] = _run(supernet, store, method, seed, arguments)
                        _save_results(arguments.results, runs)
                    found = runs[key]
                    print(
                        f"{path.stem:<16}{method.value:<20}seed {seed}  "
                        f"{100 * found['test_accuracy']:5.1f} %  {found['seconds']:5.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
    rows = _rows(runs, arguments)
    _print_table(rows, arguments)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="zips or folders of class folders")
    parser.add_argument("--methods", default=_DEFAULT_METHODS, type=_methods)
    parser.add_argument("--supernet", default="ofa_proxyless_d234_e346_k357_w0.35_tinyimagenet64")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, help="instead of each method's own")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--results", type=Path, help="file that keeps finished runs")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args()


def _methods(text: str) -> list[Method]:
    return [Method(name) for name in text.split(",")]


def _key(path: Path, method: Method, seed: int, arguments: argparse.Namespace) -> str:
    """Names a run by everything that decides its outcome."""
    decisive = [
        hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(path.resolve()),
        arguments.supernet,
        arguments.resolution,
        arguments.epochs,
        arguments.batch_size,
        arguments.learning_rate or DEFAULT_LEARNING_RATES[method],
    ]
    digest = hashlib.sha256(repr(decisive).encode()).hexdigest()
    return f"{path.stem} {method.value} {seed} {digest}"


def _load_results(path: Path | None) -> dict[str, Any]:
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def _save_results(path: Path | None, runs: Mapping[str, Any]) -> None:
    if path is not None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(runs, indent=1))
        partial.replace(path)


def _open_store(path: Path, directory: Path, image_size: int) -> ImageStore:
    settings = Settings(data_dir=directory)
    upgrade_embedded(settings.resolved_database_url)
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


def _run(
    supernet: Supernet, store: ImageStore, method: Method, seed: int, arguments: argparse.Namespace
) -> dict[str, float]:
    plan = Plan(batch_size=arguments.batch_size, micro_batch_sizes=(arguments.batch_size,))
    candidate = Candidate(
        subnet=supernet.spec.uniform(5, 4, 3),
        resolution=arguments.resolution,
        lite_residual=LiteResidualSize(),
        plan=plan,
    )
    fresh = AdaptedSupernet.fresh(supernet, store.num_classes, method=method, seed=seed)
    config, weights = fresh.subnet_weights(candidate, store)
    network = build_network(config, method, weights)
    started = time.perf_counter()
    history = train(
        network,
        store,
        resolution=arguments.resolution,
        plan=plan,
        settings=TrainSettings(
            epochs=arguments.epochs, learning_rate=arguments.learning_rate, seed=seed
        ),
    )
    seconds = time.perf_counter() - started
    test = evaluate(
        network,
        store.split("test"),
        resolution=arguments.resolution,
        batch_size=_EVALUATION_BATCH,
    )
    return {
        "test_accuracy": test,
        "validation_accuracy": history[-1].val_accuracy,
        "seconds": seconds,
    }


def _rows(runs: Mapping[str, Any], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for path in arguments.datasets:
        for method in arguments.methods:
            found = [runs[_key(path, method, s, arguments)] for s in range(arguments.seeds)]
            rows.append(
                {
                    "dataset": path.stem,
                    "method": method.value,
                    "test_accuracy": mean(run["test_accuracy"] for run in found),
                    "test_accuracy_by_seed": [run["test_accuracy"] for run in found],
                    "seconds": mean(run["seconds"] for run in found),
                }
            )
    return rows


def _print_table(rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    methods: list[Method] = arguments.methods
    accuracy = {(row["dataset"], row["method"]): 100 * row["test_accuracy"] for row in rows}
    print(f"Test accuracy in percent, mean of {arguments.seeds} seeds\n")
    print("| dataset | " + " | ".join(method.value for method in methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for path in arguments.datasets:
        cells = [f"{accuracy[path.stem, method.value]:.1f}" for method in methods]
        print(f"| {path.stem} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
