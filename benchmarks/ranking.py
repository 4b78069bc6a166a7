"""Whether scoring with shared weights ranks subnets as training them does.

    python -m benchmarks.ranking DATA.zip [DATA.zip ...] [--supernet ID] [--results FILE]

As in a job, the supernet is adapted to each dataset, and random subnets of one resolution are
scored on the validation images with its shared weights. Then each is trained alone from these
weights, as a job trains the one it chose, with two seeds. Kendall's tau-b tells how far the order
of the scores agrees with that of the accuracies after training. A single training can't be
foretold better than by another training of the same subnet: tau between the two seeds is the
ceiling. Their mean is the better judge, and tau of the score with it may lie above.

Accuracy after training is that on validation and test images together: training sees neither,
and the subnets differ by so few points that every image counts. As the score has seen the
validation images, its tau with the accuracy on test images alone is given as well.

Intervals are of a bootstrap over subnets, at 95 %. Finished trainings are kept in --results and
not repeated: delete the file after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tinytl.threads import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.completion import ResultsFile
from benchmarks.machine import describe_machine
from benchmarks.rank_correlation import agreement
from benchmarks.subnet_trainings import Trained, Training, train_all
from benchmarks.subnets import Adapted, Setting, adapted_to, add_arguments, settings_of
from search.score import score
from search.space import Candidate
from tinytl.train import TrainSettings

_SEEDS = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A dataset's subnets scored with shared weights, and how many images judge them.

    Seconds are of the processor: of the adaptation, and of scoring one subnet.
    """

    scores: list[float]
    num_validation_images: int
    num_test_images: int
    adapt_seconds: float
    score_seconds: float


def main() -> None:
    arguments = _parse_arguments()
    results = ResultsFile(arguments.results)
    rows = []
    for setting in settings_of(arguments):
        scored, trained = complete(
            setting, arguments.subnets, arguments.epochs, results, arguments.processes
        )
        rows.append({"dataset": setting.dataset.stem, **row_of(scored, trained)})
    _print_table(rows)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def complete(
    setting: Setting, num_subnets: int, epochs: int, results: ResultsFile, num_processes: int
) -> tuple[Scored, list[list[Trained]]]:
    """The scores, and for each seed the subnets trained; what results holds is not repeated."""
    name = setting.dataset.stem
    scores_key = f"{name} {num_subnets} scores {setting.digest}"
    keys = {
        (seed, number): f"{name} subnet {number} seed {seed} epochs {epochs} {setting.digest}"
        for seed in _SEEDS
        for number in range(num_subnets)
    }
    missing = [run for run, key in keys.items() if key not in results]
    if missing or scores_key not in results:
        with adapted_to(setting) as adapted:
            candidates = [setting.candidate(number) for number in range(num_subnets)]
            results.put(scores_key, asdict(_score_all(adapted, candidates)))
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
            for run, trained in zip(missing, train_all(trainings, num_processes), strict=True):
                results.put(keys[run], asdict(trained))
                _report(name, run, trained)
    return Scored(**results[scores_key]), [
        [Trained(**results[keys[seed, number]]) for number in range(num_subnets)]
        for seed in _SEEDS
    ]


def _score_all(adapted: Adapted, candidates: Sequence[Candidate]) -> Scored:
    started = time.process_time()
    scores = [score(adapted.supernet, each, adapted.store) for each in candidates]
    return Scored(
        scores=scores,
        num_validation_images=len(adapted.store.split("val")),
        num_test_images=len(adapted.store.split("test")),
        adapt_seconds=adapted.seconds,
        score_seconds=(time.process_time() - started) / len(candidates),
    )


def row_of(scored: Scored, trained: Sequence[Sequence[Trained]]) -> dict[str, Any]:
    """What a dataset's subnets tell. trained: for each seed, the subnets in scored's order."""
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
    chosen = max(range(len(accuracies)), key=scored.scores.__getitem__)
    return {
        "tau": {
            "score_and_mean": asdict(agreement(scored.scores, accuracies)),
            "score_and_seed": [asdict(agreement(scored.scores, each)) for each in by_seed],
            "score_and_mean_on_test": asdict(agreement(scored.scores, on_test)),
            "seed_and_seed": asdict(agreement(*by_seed)),
        },
        "scores": scored.scores,
        "accuracies": by_seed,
        "accuracy_spread": stdev(accuracies),
        "chosen_accuracy": accuracies[chosen],
        "mean_accuracy": mean(accuracies),
        "best_accuracy": max(accuracies),
        "num_images": num_images,
        "adapt_seconds": scored.adapt_seconds,
        "score_seconds": scored.score_seconds,
        "train_seconds": mean(each.seconds for of_seed in trained for each in of_seed),
    }


def _report(dataset: str, run: tuple[int, int], trained: Trained) -> None:
    seed, number = run
    accuracies = f"{100 * trained.validation_accuracy:.1f} and {100 * trained.test_accuracy:.1f} %"
    line = f"{dataset} subnet {number} seed {seed}: {accuracies}, {trained.seconds:.0f} s"
    print(line, file=sys.stderr, flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=10, help="of training each subnet")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="side by side")
    parser.add_argument("--results", type=Path, help="file that keeps finished trainings")
    return parser.parse_args()


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    print(
        "Kendall's tau-b with its 95 % interval. Accuracy in percent after training: mean of all"
    )
    print("subnets (standard deviation), of the one with the best score, and the best.\n")
    columns = ["score, mean of seeds", *(f"score, seed {seed}" for seed in _SEEDS)]
    columns += ["score, test images", "seed, seed", "accuracy", "chosen", "best"]
    print("| dataset | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row in rows:
        tau = row["tau"]
        cells = [_describe(tau["score_and_mean"]), *map(_describe, tau["score_and_seed"])]
        cells += [_describe(tau["score_and_mean_on_test"]), _describe(tau["seed_and_seed"])]
        cells += [
            f"{100 * row['mean_accuracy']:.1f} ({100 * row['accuracy_spread']:.1f})",
            f"{100 * row['chosen_accuracy']:.1f}",
            f"{100 * row['best_accuracy']:.1f}",
        ]
        print(f"| {row['dataset']} | " + " | ".join(cells) + " |")


def _describe(found: Mapping[str, float]) -> str:
    return f"{found['tau']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    main()
