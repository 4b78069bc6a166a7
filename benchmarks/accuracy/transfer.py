"""Methods side by side on real datasets: same subnet, same budget (TinyTL paper, table 2).

    python -m benchmarks.accuracy.transfer DATA.zip [DATA.zip ...] [--json]
    python -m benchmarks.accuracy.transfer DATA.zip ... --learning-rates full=0.0005,0.001,0.002

Prints test accuracy by dataset and method; each method's accuracy, memory and time; and how far
lite_residual+bias is above each other method, paired by dataset and seed. Where a method is given
several learning rates, all are run and the one of the best mean validation accuracy is taken: the
test images choose nothing. Memory is measured over a training as a job does, in a fresh process,
once for each method and number of classes: it depends on nothing else here.

What is trained, and from where, is in benchmarks/shared/runs.py. Finished runs are kept in
--results: a command that was stopped goes on where it is run again. Delete the file after a
change of the code.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported

from benchmarks.accuracy.transfer_tables import (
    Entry,
    best_by_validation,
    differences_of,
    print_accuracies,
    print_differences,
    print_methods,
    print_rates,
    rows_of,
)
from benchmarks.shared.completion import complete, measure
from benchmarks.shared.machine import describe_machine
from benchmarks.shared.runs import Run, add_arguments, budget_of
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.training.train import DEFAULT_LEARNING_RATES

_DEFAULT_METHODS = "head,bias,norm+head,lite_residual+bias,full"


def main() -> None:
    arguments = _parse_arguments()
    runs = _runs(arguments)
    outcomes = complete(
        (run for its_runs in runs.values() for run in its_runs),
        arguments.results,
        arguments.processes,
    )
    tried = [
        Entry(
            method=method,
            learning_rate=rate,
            outcomes={
                path: [outcomes[run] for run in runs[method, rate, path]]
                for path in arguments.datasets
            },
        )
        for method, rates in _rates(arguments).items()
        for rate in rates
    ]
    entries = best_by_validation(tried)
    firsts = {
        (entry.method, path): runs[entry.method, entry.learning_rate, path][0]
        for entry in entries
        for path in arguments.datasets
    }
    measured = measure(
        {run: outcomes[run].num_classes for run in firsts.values()},
        arguments.results,
        arguments.processes,
    )
    memory = {key: measured[run] for key, run in firsts.items()}
    differences = differences_of(entries)
    print_accuracies(entries)
    print_methods(entries, memory)
    if differences:
        print_differences(differences, len(arguments.datasets))
    if len(tried) > len(entries):
        print_rates(tried, entries)
    if arguments.json:
        answer = {
            "machine": describe_machine(),
            "budget": {
                "supernet": arguments.supernet,
                "resolution": arguments.resolution,
                "epochs": arguments.epochs,
                "batch_size": arguments.batch_size,
                "seeds": arguments.seeds,
            },
            "rows": [row for entry in entries for row in rows_of(entry, memory)],
            "methods": [entry.to_dict() for entry in entries],
            "differences": {
                method.value: asdict(difference) for method, difference in differences.items()
            },
            "tried": [entry.to_dict() for entry in tried],
        }
        print(json.dumps(answer))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.set_defaults(
        epochs=20, resolution=64, batch_size=8, results=Path("build/transfer.json")
    )
    parser.add_argument("--methods", default=_DEFAULT_METHODS, type=_methods)
    parser.add_argument(
        "--learning-rates",
        action="append",
        default=[],
        type=_method_rates,
        metavar="METHOD=RATE,...",
        help="of one method; of several the best by validation is taken",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="runs side by side"
    )
    arguments = parser.parse_args()
    for method, _ in arguments.learning_rates:
        if method not in arguments.methods:
            parser.error(f"--learning-rates names {method.value}, which --methods does not")
    return arguments


def _methods(text: str) -> list[Method]:
    return [_method(name) for name in text.split(",")]


def _method(name: str) -> Method:
    try:
        return Method(name)
    except ValueError:
        known = ", ".join(method.value for method in Method)
        raise argparse.ArgumentTypeError(f"no method {name!r}; there are {known}") from None


def _method_rates(text: str) -> tuple[Method, list[float]]:
    name, _, rates = text.partition("=")
    try:
        return _method(name), [float(rate) for rate in rates.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"learning rates must read like full=0.001,0.002 but got {text!r}"
        ) from None


def _rates(arguments: argparse.Namespace) -> dict[Method, list[float]]:
    given: dict[Method, list[float]] = dict(arguments.learning_rates)
    return {
        method: given.get(method, [arguments.learning_rate or DEFAULT_LEARNING_RATES[method]])
        for method in arguments.methods
    }


def _runs(arguments: argparse.Namespace) -> dict[tuple[Method, float, Path], list[Run]]:
    """By seed, from 0 on."""
    return {
        (method, rate, path): [
            Run(
                dataset=path,
                method=method,
                plan=Plan.whole(arguments.batch_size),
                seed=seed,
                budget=replace(budget_of(arguments), learning_rate=rate),
            )
            for seed in range(arguments.seeds)
        ]
        for path in arguments.datasets
        for method, rates in _rates(arguments).items()
        for rate in rates
    }


if __name__ == "__main__":
    main()
