"""What benchmarks.jobs.jobs makes of its rows: tables beside bars and peers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.shared.paired import paired_difference
from benchmarks.shared.tables import markdown, percent

Accuracies = Mapping[tuple[str, int], float]
"""Test accuracy of a peer by dataset and seed."""

BARS = {
    "flowers17": {24_000_000: 0.93, 6_000_000: 0.88},
    "trashnet6": {24_000_000: 0.86, 6_000_000: 0.80},
    "dtd10": {24_000_000: 0.86, 6_000_000: 0.80},
    "appleleaf4": {24_000_000: 0.93, 6_000_000: 0.90},
    "neusteel6": {24_000_000: 0.99, 6_000_000: 0.97},
    "signdigits10": {24_000_000: 0.965, 6_000_000: 0.92},
}
"""What the mean of the seeds should reach at least, by dataset and limit in bytes."""

_HEAD = ("mean", "bar", "met", "logistic", "above it", "most MB", "chosen, by seed", "seconds")
_MB = 10**6


def logistic_accuracies(record: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    """Of the logistic regressions in a results file of benchmarks.jobs.peers."""
    return {
        (row["dataset"], row["seed"]): row["test_accuracy"]
        for row in record.values()
        if row["peer"] == "logistic"
    }


def table(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], peers: Accuracies) -> str:
    """Of the jobs of one limit, by dataset: test accuracy in percent; the bar, and whether the
    mean of all seeds reaches it with every peak within the limit; the peer's mean over the same
    seeds, and the points above it; the largest measured peak; mean seconds of the processor."""
    lines = []
    for dataset, found in _by_dataset(rows).items():
        by_seed = {row["seed"]: row["test_accuracy"] for row in found}
        lines.append(
            [
                dataset,
                *(percent(by_seed[seed]) if seed in by_seed else "-" for seed in seeds),
                percent(mean(by_seed.values())),
                *_bar(dataset, found, seeds),
                *_peer(found, peers),
                _peak(found),
                "; ".join(_chosen(row) for row in found),
                f"{mean(row['processor_seconds'] for row in found):.0f}",
            ]
        )
    return markdown(["dataset", *(f"seed {seed}" for seed in seeds), *_HEAD], lines)


def comparison(rows: Sequence[Mapping[str, Any]], peers: Accuracies) -> str | None:
    """How far the jobs of one limit are above the peer, over the datasets and seeds of both."""
    shared = _by_dataset(row for row in rows if (row["dataset"], row["seed"]) in peers)
    if not shared:
        return None
    ours = [[row["test_accuracy"] for row in found] for found in shared.values()]
    theirs = [[peers[row["dataset"], row["seed"]] for row in found] for found in shared.values()]
    difference = paired_difference(ours, theirs)
    error = difference.dataset_error
    return (
        f"Mean {percent(mean(map(mean, ours)))}, logistic regression "
        f"{percent(mean(map(mean, theirs)))}: {100 * difference.mean:+.1f} points"
        + ("" if error is None else f" (standard error over datasets {percent(error)})")
        + f", above on {difference.num_above} of {len(shared)}."
    )


def _by_dataset(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """In the order of first appearance, each by seed."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(row["dataset"], []).append(row)
    return found


def _bar(dataset: str, found: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[str]:
    bar = BARS.get(dataset, {}).get(found[0]["limit_bytes"])
    if bar is None:
        return ["-", "-"]
    is_met = mean(row["test_accuracy"] for row in found) >= bar and all(map(_is_within, found))
    met = "yes" if is_met else "no"
    return [percent(bar), met if len(found) == len(seeds) else "not finished"]


def _peer(found: Sequence[Mapping[str, Any]], peers: Accuracies) -> list[str]:
    """Over the seeds of both."""
    pairs = [
        (row["test_accuracy"], peers[key])
        for row in found
        if (key := (row["dataset"], row["seed"])) in peers
    ]
    if not pairs:
        return ["-", "-"]
    ours, theirs = (mean(values) for values in zip(*pairs, strict=True))
    return [percent(theirs), f"{100 * (ours - theirs):+.1f}"]


def _peak(found: Sequence[Mapping[str, Any]]) -> str:
    most = max(row["measured_peak_bytes"] for row in found)
    return f"{most / _MB:.1f}" + ("" if all(map(_is_within, found)) else " (above the limit)")


def _is_within(row: Mapping[str, Any]) -> bool:
    return bool(row["measured_peak_bytes"] <= row["limit_bytes"])


def _chosen(row: Mapping[str, Any]) -> str:
    return f"{row['supernet']}, {row['method']}, {row['resolution']} px"
