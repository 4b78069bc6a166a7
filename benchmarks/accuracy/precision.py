"""Fewer bits side by side with 32: test accuracy on real datasets, paired by seed.

    python -m benchmarks.accuracy.precision DATA.zip [DATA.zip ...]

Trains lite_residual+bias with Adam's moments in 32 or 8 bits and trained tensors in 32 or 16
(bfloat16). Runs of one seed start from the same values and see the same images in the same
order, so each variant is compared with 32/32 seed by seed. How much 32/32 itself changes with
the seed says how large a difference may be by chance. What is trained, and from where, is in
benchmarks/shared/runs.py. Finished runs are kept in --results and not repeated: delete the file
after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.shared.completion import complete
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import Outcome, Run, add_arguments, budget_of
from tinytl.description.method import Method
from tinytl.description.plan import OptimizerBits, Plan, TrainedBits

_VARIANTS: tuple[tuple[OptimizerBits, TrainedBits], ...] = ((32, 32), (8, 32), (8, 16))
"""optimizer_bits and trained_bits; all are compared with the first."""


def main() -> None:
    arguments = _parse_arguments()
    by_dataset = {path: _runs_of(path, arguments) for path in arguments.datasets}
    outcomes = complete(
        (run for variants in by_dataset.values() for runs in variants for run in runs),
        arguments.results,
    )
    rows = []
    for path, variants in by_dataset.items():
        found = [[outcomes[run] for run in runs] for runs in variants]
        rows += rows_of(path.stem, found)
    _print_table(rows, arguments.seeds)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def rows_of(dataset: str, variants: Sequence[Sequence[Outcome]]) -> list[dict[str, Any]]:
    """A row for each of _VARIANTS from its outcomes by seed.

    seed_spread: the largest less the smallest accuracy over the seeds.
    """
    rows = []
    for (optimizer_bits, trained_bits), outcomes in zip(_VARIANTS, variants, strict=True):
        accuracies = [outcome.test_accuracy for outcome in outcomes]
        differences = [
            outcome.test_accuracy - base.test_accuracy
            for outcome, base in zip(outcomes, variants[0], strict=True)
        ]
        rows.append(
            {
                "dataset": dataset,
                "variant": f"{optimizer_bits}/{trained_bits}",
                "test_accuracy": mean(accuracies),
                "test_accuracy_by_seed": accuracies,
                "seed_spread": max(accuracies) - min(accuracies),
                "difference_by_seed": differences,
                "train_loss": mean(outcome.train_loss for outcome in outcomes),
                "train_loss_by_seed": [outcome.train_loss for outcome in outcomes],
                "seconds": mean(outcome.seconds for outcome in outcomes),
            }
        )
    return rows


def _runs_of(path: Path, arguments: argparse.Namespace) -> list[list[Run]]:
    """A list for each of _VARIANTS, of a run for each seed."""
    plan = Plan.whole(arguments.batch_size)
    return [
        [
            Run(
                dataset=path,
                method=Method.LITE_RESIDUAL_BIAS,
                plan=replace(plan, optimizer_bits=optimizer_bits, trained_bits=trained_bits),
                seed=seed,
                budget=budget_of(arguments),
            )
            for seed in range(arguments.seeds)
        ]
        for optimizer_bits, trained_bits in _VARIANTS
    ]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    return parser.parse_args()


def _print_table(rows: Sequence[Mapping[str, Any]], num_seeds: int) -> None:
    print(f"Test accuracy in percent, mean of {num_seeds} seeds; variants are optimizer bits /")
    print("trained bits. Spread: largest less smallest over the seeds. Difference: to 32/32 of")
    print("the same seed, from seed 0 on. Loss: mean over the images of the last epoch.\n")
    print("| dataset | variant | accuracy | spread | difference by seed | train loss |")
    print("|---" * 6 + "|")
    for row in rows:
        differences = "-"
        if row["variant"] != rows[0]["variant"]:
            differences = ", ".join(f"{100 * value:+.1f}" for value in row["difference_by_seed"])
        print(
            f"| {row['dataset']} | {row['variant']} | {100 * row['test_accuracy']:.1f} "
            f"| {100 * row['seed_spread']:.1f} | {differences} | {row['train_loss']:.3f} |"
        )


if __name__ == "__main__":
    main()
