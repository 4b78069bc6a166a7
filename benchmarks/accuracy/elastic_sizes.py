"""What it costs to adapt lite residual modules of all sizes at once instead of one.

    python -m benchmarks.accuracy.elastic_sizes DATA.zip [DATA.zip ...] [--supernet ID] [--seeds N]

A job adapts its supernet with a random size of the modules in each step, so that the size can be
searched with the subnet. Here the supernet is adapted so, and with each single size in as many
steps; the same random subnets are then scored with the shared weights on validation and test
images together: the adaptation has seen neither. Differences are paired by seed, which decides
the new head, the subnets and the images of each step; with the sizes nothing else changes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

import numpy as np

from benchmarks.accuracy.subnets import Adapted, Setting, adapted_to, add_arguments, settings_of
from benchmarks.shared.machine import describe_machine
from search.space.lite_residual_sizes import SIZES
from tinytl.description.config import LiteResidualSize
from tinytl.engine.network import build_network
from tinytl.training.train import correct_images

_EVALUATION_BATCH = 64


def main() -> None:
    arguments = _parse_arguments()
    rows = []
    for setting in settings_of(arguments):
        of_all = [_scores(setting, SIZES, seed, arguments) for seed in range(arguments.seeds)]
        for size in SIZES:
            of_one = [
                _scores(setting, (size,), seed, arguments)[size] for seed in range(arguments.seeds)
            ]
            row = row_of([scores[size] for scores in of_all], of_one)
            rows.append({"dataset": setting.dataset.stem, "size": describe(size), **row})
    _print_table(rows)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _scores(
    setting: Setting,
    sizes: tuple[LiteResidualSize, ...],
    seed: int,
    arguments: argparse.Namespace,
) -> dict[LiteResidualSize, float]:
    """Mean accuracy of the subnets by size, adapted with these sizes."""
    adaptation = replace(setting.adaptation, lite_residual_sizes=sizes, seed=seed)
    with adapted_to(replace(setting, adaptation=adaptation)) as adapted:
        return {
            size: mean(
                _accuracy(setting, adapted, number, size) for number in range(arguments.subnets)
            )
            for size in sizes
        }


def _accuracy(setting: Setting, adapted: Adapted, number: int, size: LiteResidualSize) -> float:
    """On validation and test images together."""
    candidate = replace(setting.candidate(number), lite_residual=size)
    config, weights = adapted.supernet.subnet_weights(candidate, adapted.store)
    network = build_network(config, adapted.supernet.method, weights)
    correct = [
        correct_images(
            network,
            adapted.store.split(split),
            resolution=candidate.resolution,
            batch_size=_EVALUATION_BATCH,
        )
        for split in ("val", "test")
    ]
    return float(np.concatenate(correct).mean())


def row_of(of_all: Sequence[float], of_one: Sequence[float]) -> dict[str, Any]:
    """Accuracies by seed, adapted with all sizes and with this one."""
    differences = [whole - alone for whole, alone in zip(of_all, of_one, strict=True)]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {
        "of_all": list(of_all),
        "of_one": list(of_one),
        "difference": mean(differences),
        "difference_error": error,
    }


def describe(size: LiteResidualSize) -> str:
    return f"{size.groups} groups, kernel {size.max_kernel_size}"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=4, help="how many, from 0 on")
    return parser.parse_args()


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    print(
        "Accuracy in percent with shared weights, mean of subnets and seeds; ±: standard error.\n"
    )
    print("| dataset | size | adapted with all | with this one | difference |")
    print("|---" * 5 + "|")
    for row in rows:
        error = row["difference_error"]
        deviation = "" if error is None else f" ± {100 * error:.1f}"
        print(
            f"| {row['dataset']} | {row['size']} | {100 * mean(row['of_all']):.1f} "
            f"| {100 * mean(row['of_one']):.1f} | {100 * row['difference']:+.1f}{deviation} |"
        )


if __name__ == "__main__":
    main()
