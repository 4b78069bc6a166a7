"""The best that is known of the predictor's landscape, for searches to be measured by.

    python -m benchmarks.search.best --predictor FILE.safetensors

For each limit, evolution searches on the landscape itself, under 25 memory limits up to it, twice
under each and ten times under the last, some 10,000 candidates each time. What it finds is
bettered by the best change of one choice or two until none helps, and NSGA-II goes on from all of
that for 300 generations. The best is written to benchmarks/search/data/best.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.search.front import hypervolume
from benchmarks.search.landscapes import Landscape, Rows, predictor_landscape
from benchmarks.search.problem import Problem, Row
from benchmarks.search.searchers.evolution import evolve, evolve_front, least_bytes
from benchmarks.search.tables import FOLDER

BEST = FOLDER / "best.json"

_SHARES = (0.25, 0.5, 0.75)
_NUM_LIMITS = 25
_NUM_STARTS = 2
_NUM_LAST_STARTS = 10
_NUM_GENERATIONS = 300


def best_known(landscape: Landscape, limit_share: float) -> tuple[float, float]:
    """Accuracy and hypervolume (accuracy times bytes)."""
    problem = Problem(landscape=landscape, limit_share=limit_share)
    rng = np.random.default_rng(0)
    smallest = least_bytes(problem, rng)
    found = [evolve(problem, lambda rows: -problem.peak_bytes(rows), problem.limit_bytes, rng)[0]]
    for number in range(1, _NUM_LIMITS + 1):
        limit = smallest + number / _NUM_LIMITS * (problem.limit_bytes - smallest)
        for _ in range(_NUM_STARTS if number < _NUM_LIMITS else _NUM_LAST_STARTS):
            winner = evolve(problem, landscape.accuracy, limit, rng)[0]
            found.append(_climbed(problem, winner, limit))
    rows = evolve_front(problem, landscape.accuracy, np.array(found), _NUM_GENERATIONS, rng)
    accuracy = landscape.accuracy(rows)
    area = hypervolume(
        accuracy,
        problem.peak_bytes(rows),
        limit_bytes=problem.limit_bytes,
        chance=landscape.chance,
    )
    return float(accuracy.max()), area


def best_of_table(landscape: Landscape, limit_share: float) -> tuple[float, float]:
    """The same of a landscape that is small enough to look at whole."""
    problem = Problem(landscape=landscape, limit_share=limit_share)
    rows = landscape.every_row()
    peak_bytes, accuracy = problem.peak_bytes(rows), landscape.accuracy(rows)
    area = hypervolume(
        accuracy, peak_bytes, limit_bytes=problem.limit_bytes, chance=landscape.chance
    )
    return float(accuracy[peak_bytes <= problem.limit_bytes].max()), area


def _climbed(problem: Problem, row: Row, limit_bytes: float) -> Row:
    """Bettered by the best change of one choice or two until none helps."""
    sizes = problem.landscape.sizes
    while True:
        ones = _neighbours(row[None], sizes)
        near = np.unique(problem.landscape.canonical(_neighbours(ones, sizes)), axis=0)
        near = near[problem.peak_bytes(near) <= limit_bytes]
        accuracy = problem.landscape.accuracy(near)
        if accuracy.max() <= problem.landscape.accuracy(row[None])[0]:
            return row
        row = near[np.argmax(accuracy)]


def _neighbours(rows: Rows, sizes: Rows) -> Rows:
    """The rows themselves, and all that differ from one of them in one choice."""
    found = [rows]
    for column, size in enumerate(sizes):
        for value in range(size):
            other = rows.copy()
            other[:, column] = value
            found.append(other)
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predictor", type=Path, required=True, help="OFA's, as .safetensors")
    landscape = predictor_landscape(parser.parse_args().predictor)
    limits = {}
    for share in _SHARES:
        accuracy, area = best_known(landscape, share)
        limits[str(share)] = {"accuracy": accuracy, "hypervolume": round(area)}
        print(f"{share:.0%}: accuracy {accuracy:.4f}, hypervolume {area:.0f}")
    content = {"landscape": landscape.name, "digest": landscape.digest, "limits": limits}
    BEST.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
