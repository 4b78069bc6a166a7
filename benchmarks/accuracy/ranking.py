"""Whether scoring with shared weights ranks subnets as training them does.

    python -m benchmarks.accuracy.ranking DATA.zip [DATA.zip ...] [--supernet ID] [--results FILE]

As in a job, the supernet is adapted to each dataset, and random subnets are scored on the
validation images with its shared weights. Then each is trained alone from these weights, as a job
trains the one it chose, with two seeds. Kendall's tau-b tells how far the order of the scores
agrees with that of the accuracies after training. A single training can't be foretold better than
by another training of the same subnet: tau between the two seeds is the ceiling. Their mean is the
better judge, and tau of the score with it may lie above. What limits the score itself shows where
the supernet is adapted again, with another seed, and the subnets are scored again.

Accuracy after training is that on validation and test images together: training sees neither,
and the subnets differ by so few points that every image counts. As the score has seen the
validation images, its tau with the accuracy on test images alone is given as well. A score judges
each image together with its mirror image, and of equally accurate subnets that of the lowest loss
is the better. Beside it stand accuracy and loss for themselves, the accuracy on the images without
their mirror images, and how many multiply-accumulates the subnets take.

With --mixed, each subnet is scored and trained twice: its biases alone, and with lite residual
modules too, from one supernet that is adapted for both, as in a job of method auto. The taus are
then over all of them, and beside them stand those within each kind, and of how many subnets the
score tells right which of the two is better after training.

Intervals are of a bootstrap over subnets, at 95 %; with several datasets, the mean of their taus
is given, too. Finished trainings are kept in --results and not repeated: delete the file after a
change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np

from benchmarks.accuracy.subnet_trainings import Trained, Training, side_by_side
from benchmarks.accuracy.subnets import Setting, adapted_to, add_arguments, settings_of
from benchmarks.shared.completion import ResultsFile
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.rank_correlation import Agreement, agreement
from search.adaptation.score import score
from search.space.bulk_pricing import BulkPricing
from search.space.encoding import Encoding
from tinytl.training.train import TrainSettings

_SEEDS = (0, 1)

Pair = tuple[Sequence[float], Sequence[float]]
"""What two rankings have for the same subnets."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A dataset's subnets scored with shared weights, and how many images judge them.

    plain: accuracies without mirror images. has_modules: whether there are lite residuals, where
    subnets are scored without and with them, one after the other; else empty. Seconds are of the
    processor: of the adaptation, and of scoring one subnet.
    """

    accuracies: list[float]
    losses: list[float]
    plain: list[float]
    macs: list[int]
    num_validation_images: int
    num_test_images: int
    adapt_seconds: float
    score_seconds: float
    has_modules: list[bool] = field(default_factory=list)

    @property
    def ranks(self) -> list[int]:
        """As a job ranks them, from 0 for the worst."""
        merits = [(a, -loss) for a, loss in zip(self.accuracies, self.losses, strict=True)]
        return [sorted(set(merits)).index(merit) for merit in merits]


def main() -> None:
    arguments = _parse_arguments()
    results = ResultsFile(arguments.results)
    rows = []
    for setting in settings_of(arguments):
        other = replace(setting, adaptation=replace(setting.adaptation, seed=1))
        scored, again = (score_all(each, arguments.subnets, results) for each in (setting, other))
        trained = train_all(
            setting, arguments.subnets, arguments.epochs, results, arguments.processes
        )
        rows.append({"dataset": setting.dataset.stem, **row_of(scored, again, trained)})
    taus = taus_of(rows)
    _print_table(rows, taus)
    if arguments.json:
        tau = {name: [asdict(each) for each in found] for name, found in taus.items()}
        print(json.dumps({"machine": describe_machine(), "rows": rows, "tau": tau}))


def score_all(setting: Setting, num_subnets: int, results: ResultsFile) -> Scored:
    """The scores of the subnets, which results keeps."""
    key = f"{setting.dataset.stem} {num_subnets} scores {setting.digest}"
    if key not in results:
        with adapted_to(setting) as adapted:
            candidates = setting.candidates(num_subnets)
            started = time.process_time()
            scores = [score(adapted.supernet, each, adapted.store) for each in candidates]
            score_seconds = (time.process_time() - started) / len(candidates)
            pricing = BulkPricing(
                setting.space, adapted.supernet.method, adapted.store.num_classes
            )
            scored = Scored(
                accuracies=[each.accuracy for each in scores],
                losses=[each.loss for each in scores],
                plain=[
                    score(adapted.supernet, each, adapted.store, horizontal_flip=False).accuracy
                    for each in candidates
                ],
                macs=pricing.macs(Encoding(setting.space).rows(candidates)).tolist(),
                num_validation_images=len(adapted.store.split("val")),
                num_test_images=len(adapted.store.split("test")),
                adapt_seconds=adapted.seconds,
                score_seconds=score_seconds,
                has_modules=[each.lite_residual is not None for each in candidates]
                if setting.is_mixed
                else [],
            )
        results.put(key, asdict(scored))
    return Scored(**results[key])


def train_all(
    setting: Setting, num_subnets: int, epochs: int, results: ResultsFile, num_processes: int
) -> list[list[Trained]]:
    """For each seed the subnets trained; what results holds is not repeated."""
    name, candidates = setting.dataset.stem, setting.candidates(num_subnets)
    keys = {
        (seed, number): f"{name} subnet {number} seed {seed} epochs {epochs} {setting.digest}"
        for seed in _SEEDS
        for number in range(len(candidates))
    }
    missing = [run for run, key in keys.items() if key not in results]
    if missing:
        with adapted_to(setting) as adapted:
            path = adapted.images.with_name("adapted.safetensors")
            adapted.supernet.save(path)
            trainings = [
                Training(
                    adapted=path,
                    images=adapted.images,
                    candidate=candidates[number],
                    settings=TrainSettings(epochs=epochs, seed=seed),
                )
                for seed, number in missing
            ]
            outcomes = side_by_side(trainings, num_processes)
            for (seed, number), trained in zip(missing, outcomes, strict=True):
                results.put(keys[seed, number], asdict(trained))
                _say(f"{name} subnet {number} seed {seed}: {trained.describe()}")
    return [
        [Trained(**results[keys[seed, number]]) for number in range(len(candidates))]
        for seed in _SEEDS
    ]


def row_of(scored: Scored, again: Scored, trained: Sequence[Sequence[Trained]]) -> dict[str, Any]:
    """What a dataset's subnets tell. again: scored after another adaptation; trained: for each
    seed, the subnets in scored's order.
    """
    num_images = scored.num_validation_images + scored.num_test_images
    by_seed = [
        [
            (
                scored.num_validation_images * each.validation_accuracy
                + scored.num_test_images * each.test_accuracy
            )
            / num_images
            for each in of_seed
        ]
        for of_seed in trained
    ]
    accuracies = [mean(pair) for pair in zip(*by_seed, strict=True)]
    on_test = [
        mean(each.test_accuracy for each in of_subnet) for of_subnet in zip(*trained, strict=True)
    ]
    ranks, losses = scored.ranks, [-loss for loss in scored.losses]
    chosen = max(range(len(ranks)), key=ranks.__getitem__)
    pairs: dict[str, Pair] = {
        "score, mean of seeds": (ranks, accuracies),
        **{f"score, seed {i}": (ranks, by_seed[i]) for i in _SEEDS},
        "score, mean of seeds on test images": (ranks, on_test),
        "seed 0, seed 1: the ceiling": (by_seed[0], by_seed[1]),
        "score, score after another adaptation": (ranks, again.ranks),
        "accuracy alone, mean of seeds": (scored.accuracies, accuracies),
        "loss alone, mean of seeds": (losses, accuracies),
        "without mirror images, mean of seeds": (scored.plain, accuracies),
        "without mirror images, mean of seeds on test images": (scored.plain, on_test),
        "without mirror images, after another adaptation": (scored.plain, again.plain),
        "multiply-accumulates, mean of seeds": (scored.macs, accuracies),
    }
    kinds: dict[str, float] = {}
    if scored.has_modules:
        alone, with_modules = (slice(first, None, 2) for first in range(2))
        for name, kind in (("biases alone", alone), ("lite residuals", with_modules)):
            pairs[f"{name}: score, mean of seeds"] = (ranks[kind], accuracies[kind])
            pairs[f"{name}: seed 0, seed 1"] = (by_seed[0][kind], by_seed[1][kind])
            kinds[f"{name}: accuracy"] = mean(accuracies[kind])
            kinds[f"{name}: score"] = mean(scored.accuracies[kind])
        kinds["better kind told right by the score"] = told_right(ranks, accuracies)
        kinds["better kind told right by another training"] = told_right(*by_seed)
    return {
        "pairs": pairs,
        "kinds": kinds,
        "ranks": ranks,
        "accuracies": by_seed,
        "deviation_accuracy": stdev(accuracies),
        "chosen_accuracy": accuracies[chosen],
        "mean_accuracy": mean(accuracies),
        "best_accuracy": max(accuracies),
        "num_images": num_images,
        "adapt_seconds": scored.adapt_seconds,
        "score_seconds": scored.score_seconds,
        "train_seconds": mean(each.seconds for of_seed in trained for each in of_seed),
    }


def told_right(foretold: Sequence[float], found: Sequence[float]) -> float:
    """Of how many subnets, each without and with lite residuals one after the other, the better of
    the two is foretold to be the better: 0 to 1. Where either says that they are equal, half.
    """
    signs = [np.sign(np.subtract(values[1::2], values[::2])) for values in (foretold, found)]
    return float(np.mean((1 + signs[0] * signs[1]) / 2))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=10, help="of training each subnet")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="side by side")
    parser.add_argument("--results", type=Path, help="file that keeps finished trainings")
    return parser.parse_args()


def taus_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Agreement]]:
    """For each pair of rankings tau on each dataset and, where there are several, their mean."""
    taus = {}
    for name in rows[0]["pairs"]:
        pairs = [row["pairs"][name] for row in rows]
        taus[name] = [agreement(pair) for pair in pairs]
        if len(rows) > 1:
            taus[name].append(agreement(*pairs))
    return taus


def _print_table(rows: Sequence[Mapping[str, Any]], taus: Mapping[str, list[Agreement]]) -> None:
    print("Kendall's tau-b with its 95 % interval; accuracy in percent after training.\n")
    names = [row["dataset"] for row in rows] + (["mean"] if len(rows) > 1 else [])
    lines = {"": names, "---": ["---"] * len(names)}
    for pair, found in taus.items():
        lines[pair] = [f"{x.tau:.2f} ({x.low:.2f} to {x.high:.2f})" for x in found]
    for name in ("mean", "deviation", "chosen", "best"):
        values = [100 * row[f"{name}_accuracy"] for row in rows]
        values += [mean(values)] if len(rows) > 1 else []
        lines[f"accuracy, {name}"] = [f"{value:.1f}" for value in values]
    for name in rows[0]["kinds"]:
        values = [100 * row["kinds"][name] for row in rows]
        values += [mean(values)] if len(rows) > 1 else []
        lines[f"{name}, in percent"] = [f"{value:.1f}" for value in values]
    for name, cells in lines.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
