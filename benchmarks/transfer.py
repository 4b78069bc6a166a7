"""Methods side by side on real datasets: same subnet, same budget, test accuracy.

    python -m benchmarks.transfer DATA.zip [DATA.zip ...] [--methods head,lite_residual+bias]

What is trained, and from where, is in benchmarks/runs.py. Finished runs are kept in --results and
not repeated: delete the file after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tinytl.threads import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.machine import describe_machine
from benchmarks.runs import Run, add_arguments, budget_of, complete
from tinytl.plan import Plan
from tinytl.trainable import Method

_DEFAULT_METHODS = "head,lite_residual+bias"


def main() -> None:
    arguments = _parse_arguments()
    by_row = {
        (path, method): [
            Run(
                dataset=path,
                method=method,
                plan=Plan.whole(arguments.batch_size),
                seed=seed,
                budget=budget_of(arguments),
            )
            for seed in range(arguments.seeds)
        ]
        for path in arguments.datasets
        for method in arguments.methods
    }
    outcomes = complete((run for runs in by_row.values() for run in runs), arguments.results)
    rows = []
    for (path, method), runs in by_row.items():
        found = [outcomes[run] for run in runs]
        rows.append(
            {
                "dataset": path.stem,
                "method": method.value,
                "test_accuracy": mean(outcome.test_accuracy for outcome in found),
                "test_accuracy_by_seed": [outcome.test_accuracy for outcome in found],
                "seconds": mean(outcome.seconds for outcome in found),
            }
        )
    _print_table(rows, arguments)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--methods", default=_DEFAULT_METHODS, type=_methods)
    return parser.parse_args()


def _methods(text: str) -> list[Method]:
    return [Method(name) for name in text.split(",")]


def _print_table(rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    methods: list[Method] = arguments.methods
    datasets: list[Path] = arguments.datasets
    accuracy = {(row["dataset"], row["method"]): 100 * row["test_accuracy"] for row in rows}
    print(f"Test accuracy in percent, mean of {arguments.seeds} seeds\n")
    print("| dataset | " + " | ".join(method.value for method in methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for path in datasets:
        cells = [f"{accuracy[path.stem, method.value]:.1f}" for method in methods]
        print(f"| {path.stem} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
