"""What benchmarks.jobs.job_time makes of its rows: a table of both builds, and the ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.shared.paired import paired_difference
from benchmarks.shared.tables import markdown, percent
from tinytl.units import format_bytes

Row = Mapping[str, Any]

BARS = {"wall_seconds": 0.4, "processor_seconds": 0.6}
"""Times of the new build that are to be reached, as shares of the old one's."""

_HEAD = (
    *("dataset", "limit", "seeds", "build", "seconds", "of the processor"),
    *("test accuracy", "head only", "peak MB", "all processes MB"),
)
_MB = 10**6


def tables(rows: Sequence[Row]) -> str:
    """By dataset and limit, of the seeds that both builds have finished: means of the builds, and
    new over old (accuracies: their difference in points); then of everything."""
    pairs = _pairs(rows)
    lines = []
    for (dataset, limit), found in pairs.items():
        olds, news = zip(*found, strict=True)
        where = [dataset, format_bytes(limit), str(len(found))]
        lines.append([*where, "old", *_means(olds)])
        lines.append([*where, "new", *_means(news)])
        lines.append([*where, "new : old", *_compared(olds, news)])
    if not lines:
        return "no seed of any job is finished by both builds"
    return f"{markdown(_HEAD, lines)}\n\n{_summary(list(pairs.values()))}"


def _pairs(rows: Sequence[Row]) -> dict[tuple[str, int], list[tuple[Row, Row]]]:
    """By dataset and limit, the old and the new row of each seed."""
    found: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["dataset"], row["limit_bytes"], row["seed"]), {})[row["build"]] = row
    pairs: dict[tuple[str, int], list[tuple[Row, Row]]] = {}
    for (dataset, limit, _), by_build in found.items():
        if len(by_build) == 2:
            pairs.setdefault((dataset, limit), []).append((by_build["old"], by_build["new"]))
    return pairs


def _means(rows: Sequence[Row]) -> list[str]:
    return [
        f"{_mean(rows, 'wall_seconds'):.0f}",
        f"{_mean(rows, 'processor_seconds'):.0f}",
        percent(_mean(rows, "test_accuracy")),
        percent(_mean(rows, "head_only_test_accuracy")),
        f"{max(row['measured_peak_bytes'] for row in rows) / _MB:.1f}",
        _megabytes(rows),
    ]


def _compared(olds: Sequence[Row], news: Sequence[Row]) -> list[str]:
    points = (
        f"{100 * (_mean(news, name) - _mean(olds, name)):+.1f}"
        for name in ("test_accuracy", "head_only_test_accuracy")
    )
    peaks = [max(row["measured_peak_bytes"] for row in rows) for rows in (olds, news)]
    known = all(row["memory_bytes"] is not None for row in (*olds, *news))
    return [
        f"{_ratio(olds, news, 'wall_seconds'):.2f}",
        f"{_ratio(olds, news, 'processor_seconds'):.2f}",
        *points,
        f"{peaks[1] / peaks[0]:.2f}",
        f"{_ratio(olds, news, 'memory_bytes'):.2f}" if known else "unknown",
    ]


def _summary(pairs: Sequence[Sequence[tuple[Row, Row]]]) -> str:
    """A sentence for each bar, and one for the accuracies."""
    olds, news = zip(*(pair for found in pairs for pair in found), strict=True)
    sentences = []
    for name, bar in BARS.items():
        ratio = _ratio(olds, news, name)
        met = "met" if ratio <= bar else "not met"
        what = "Wall clock" if name == "wall_seconds" else "Processor time"
        sentences.append(f"{what}, all jobs: {ratio:.2f} of the old build's (bar {bar}: {met}).")
    by_job = [
        [[row["test_accuracy"] for row in rows] for rows in zip(*found, strict=True)]
        for found in pairs
    ]
    difference = paired_difference([job[1] for job in by_job], [job[0] for job in by_job])
    error = difference.seed_error
    sentences.append(
        f"Test accuracy: {100 * difference.mean:+.1f} points"
        + ("" if error is None else f" (standard error over seeds {percent(error)})")
        + "."
    )
    return "\n".join(sentences)


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(mean(row[name] for row in rows))


def _ratio(olds: Sequence[Row], news: Sequence[Row], name: str) -> float:
    return _mean(news, name) / _mean(olds, name)


def _megabytes(rows: Sequence[Row]) -> str:
    sizes = [row["memory_bytes"] for row in rows]
    return "unknown" if None in sizes else f"{max(sizes) / _MB:.0f}"
