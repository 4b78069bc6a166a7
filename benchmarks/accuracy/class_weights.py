"""What balancing classes does to training on uneven images.

    python -m benchmarks.accuracy.class_weights DATA.zip [DATA.zip ...] [--ratios 1 3 10] [--json]

DATA holds `name/split/class/image`. Of every second class only one in RATIO training images is
kept; the test images stay as they are, even. The supernet is adapted as a job adapts it, and its
middle subnet is trained by the rest of the images, once with class_weights "none" and once
"balanced"; all else is the same. Accuracies are on the test images: as these are even, accuracy
is balanced accuracy.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from statistics import mean, stdev
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.accuracy.subnets import Adapted, Setting, adapted_to
from benchmarks.shared.machine import describe_machine
from search.adaptation.adapt import AdaptSettings
from search.space.candidates import Candidate
from search.statistics.evaluation import Evaluation, evaluate_classes
from tinytl.description.class_weights import ClassWeights
from tinytl.description.config import LiteResidualSize
from tinytl.description.plan import Plan
from tinytl.engine.network import build_network
from tinytl.training.train import TrainSettings, class_probabilities, train

_RESOLUTION = 64
_EVALUATION_BATCH = 64
_KINDS: tuple[ClassWeights, ...] = ("none", "balanced")


def main() -> None:
    arguments = _parse_arguments()
    rows = []
    for dataset in arguments.datasets:
        for ratio in arguments.ratios:
            found = [_compare(dataset, ratio, seed, arguments) for seed in range(arguments.seeds)]
            rows.append({"dataset": dataset.stem, "ratio": ratio, **row_of(found)})
            print(_line(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def make_uneven(dataset: Path, ratio: int, target: Path) -> list[str]:
    """Write the zip with fewer training images of every second class; returns these classes."""
    with zipfile.ZipFile(dataset) as whole, zipfile.ZipFile(target, "w") as uneven:
        by_place: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in sorted(whole.namelist()):
            parts = PurePosixPath(name).parts
            if len(parts) == 4 and not name.endswith("/"):
                by_place[parts[1], parts[2]].append(name)
        classes = sorted({label for _, label in by_place})
        rare = classes[1::2]
        for (split, label), names in by_place.items():
            kept = names[::ratio] if split == "train" and label in rare else names
            for name in kept:
                uneven.writestr("/".join(PurePosixPath(name).parts[1:]), whole.read(name))
    return rare


def _compare(
    dataset: Path, ratio: int, seed: int, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        uneven = Path(folder) / f"{dataset.stem}.zip"
        rare = make_uneven(dataset, ratio, uneven)
        setting = Setting(
            dataset=uneven,
            resolutions=(_RESOLUTION,),
            adaptation=AdaptSettings(steps=arguments.adapt_steps, seed=seed),
        )
        with adapted_to(setting) as adapted:
            return {
                kind: _accuracies(adapted, _train(adapted, kind, seed, arguments), rare)
                for kind in _KINDS
            }


def _train(
    adapted: Adapted, kind: ClassWeights, seed: int, arguments: argparse.Namespace
) -> Evaluation:
    supernet = adapted.supernet
    candidate = Candidate(
        subnet=supernet.spec.uniform(5, 4, 3),
        resolution=_RESOLUTION,
        lite_residual=LiteResidualSize(),
        plan=Plan.whole(8),
    )
    config, weights = supernet.subnet_weights(candidate, adapted.store)
    network = build_network(config, supernet.method, weights)
    settings = TrainSettings(epochs=arguments.epochs, seed=seed)
    train(
        network,
        adapted.store,
        resolution=_RESOLUTION,
        plan=candidate.plan,
        settings=replace(settings, class_weights=kind),
    )
    test = adapted.store.split("test")
    probabilities = class_probabilities(
        network, test, resolution=_RESOLUTION, batch_size=_EVALUATION_BATCH
    )
    return evaluate_classes(test.labels, probabilities)


def _accuracies(adapted: Adapted, found: Evaluation, rare: Sequence[str]) -> dict[str, float]:
    def recall(are_rare: bool) -> float:
        scores = zip(adapted.store.classes, found.classes, strict=True)
        return mean(one.recall or 0 for name, one in scores if (name in rare) is are_rare)

    return {
        "balanced": found.balanced_accuracy,
        "rare": recall(are_rare=True),
        "other": recall(are_rare=False),
    }


def row_of(found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Means over seeds, and the paired difference of balanced accuracies with its error."""
    differences = [one["balanced"]["balanced"] - one["none"]["balanced"] for one in found]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    means = {
        kind: {what: mean(one[kind][what] for one in found) for what in found[0][kind]}
        for kind in _KINDS
    }
    return {**means, "difference": mean(differences), "difference_error": error}


def _line(row: Mapping[str, Any]) -> str:
    none, balanced, error = row["none"], row["balanced"], row["difference_error"]
    deviation = "" if error is None else f" ± {100 * error:.1f}"

    def change(what: str) -> str:
        return f"{100 * none[what]:.1f} -> {100 * balanced[what]:.1f}"

    return (
        f"| {row['dataset']} | {row['ratio']} | {change('balanced')} | "
        f"{100 * row['difference']:+.1f}{deviation} | {change('rare')} | {change('other')} |"
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("datasets", nargs="+", type=Path, help="zips")
    parser.add_argument("--ratios", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--adapt-steps", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
