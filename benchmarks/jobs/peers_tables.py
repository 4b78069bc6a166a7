"""The tables of benchmarks.jobs.peers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.jobs.peers_training import Recipe
from benchmarks.shared.tables import markdown, percent

_MB = 10**6


def logistic_table(rows: Sequence[dict[str, Any]]) -> str:
    """By dataset: test accuracy of each seed and their mean in percent, and what was chosen."""

    def chosen(found: Sequence[dict[str, Any]]) -> list[str]:
        return ["; ".join(f"{row['resolution']} px, {row['inverse_penalty']:g}" for row in found)]

    return _table(rows, ["resolution and C, by seed"], chosen)


def training_table(rows: Sequence[dict[str, Any]]) -> str:
    """The same; and the most memory of the seeds, in MB, and their mean seconds of training."""

    def chosen(found: Sequence[dict[str, Any]]) -> list[str]:
        memories = [row["memory"] for row in found]
        return [
            "; ".join(Recipe(**row["recipe"]).describe() for row in found),
            *(
                _megabytes([memory[name] for memory in memories])
                for name in ("allocator_peak_bytes", "rss_growth_bytes", "process_peak_bytes")
            ),
            f"{mean(row['seconds'] for row in found):.0f}",
        ]

    return _table(
        rows, ["recipe, by seed", "allocator", "RSS growth", "process", "seconds"], chosen
    )


def _table(rows: Sequence[dict[str, Any]], more: Sequence[str], chosen: Any) -> str:
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_dataset.setdefault(row["dataset"], []).append(row)
    seeds = [str(row["seed"]) for row in next(iter(by_dataset.values()))]
    lines = []
    for dataset, found in by_dataset.items():
        accuracies = [row["test_accuracy"] for row in found]
        cells = [*map(percent, accuracies), percent(mean(accuracies))]
        lines.append([dataset, *cells, *chosen(found)])
    means = [
        percent(mean(found[number]["test_accuracy"] for found in by_dataset.values()))
        for number in range(len(seeds))
    ]
    overall = percent(mean(row["test_accuracy"] for row in rows))
    lines.append(["mean", *means, overall, *[""] * len(more)])
    return markdown(["dataset", *(f"seed {seed}" for seed in seeds), "mean", *more], lines)


def _megabytes(found: Sequence[int | None]) -> str:
    known = [num_bytes for num_bytes in found if num_bytes is not None]
    return f"{max(known) / _MB:.1f}" if known else "-"
