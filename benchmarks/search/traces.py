"""Searches carried out, and the record of those that are slow and always come out the same."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.search.front import hypervolume
from benchmarks.search.problem import Problem, Searcher

BUDGETS = (10, 25, 50, 100, 250)
CHECKPOINTS = (5, 10, 15, 20, 25, 35, 50, 65, 80, 100, 125, 150, 175, 200, 225, 250)
RECORD = Path(__file__).parent / "data" / "peers.json.gz"


class StaleRecordError(Exception):
    """The record is of another landscape than the one at hand."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A search seen after so many evaluations: best accuracy, hypervolume (accuracy times bytes)
    and processor seconds spent on proposing, in one thread.
    """

    landscape: str
    limit_share: float
    searcher: str
    seed: int
    evaluations: list[int]
    accuracy: list[float]
    hypervolume: list[float]
    seconds: list[float]

    def at(self, evaluations: int) -> tuple[float, float]:
        """Best accuracy and hypervolume after so many evaluations."""
        index = self.evaluations.index(evaluations)
        return self.accuracy[index], self.hypervolume[index]

    def after(self, seconds: float, score_seconds: float) -> tuple[float, float] | None:
        """The same after so much time, scoring included; None where nothing was seen by then."""
        times = np.array(self.evaluations) * score_seconds + self.seconds
        done = np.flatnonzero(times <= seconds)
        return None if not len(done) else (self.accuracy[done[-1]], self.hypervolume[done[-1]])


def carry_out(
    problem: Problem, searcher: Searcher, evaluations: Iterable[int]
) -> tuple[list[float], list[float], list[float]]:
    """Best accuracy, hypervolume and proposing seconds after each of these numbers, rounded as
    the record has them."""
    wanted = sorted(evaluations)
    landscape = problem.landscape
    accuracies, peaks, seconds = [], [], 0.0
    found: tuple[list[float], list[float], list[float]] = ([], [], [])
    for number in range(1, wanted[-1] + 1):
        started = time.process_time()
        row = searcher.ask()
        seconds += time.process_time() - started
        peak_bytes = float(problem.peak_bytes(row[None])[0])
        if peak_bytes > problem.limit_bytes:
            raise ValueError(f"{searcher} proposed {row}, which does not fit")
        accuracies.append(float(landscape.accuracy(row[None])[0]))
        peaks.append(peak_bytes)
        started = time.process_time()
        searcher.tell(row, accuracies[-1])
        seconds += time.process_time() - started
        if number in wanted:
            area = hypervolume(
                np.array(accuracies),
                np.array(peaks),
                limit_bytes=problem.limit_bytes,
                chance=landscape.chance,
            )
            figures = (round(max(accuracies), 5), float(round(area)), round(seconds, 2))
            for column, value in zip(found, figures, strict=True):
                column.append(value)
    return found


def save(traces: Iterable[Trace], digests: dict[str, str], machine: Any, path: Path) -> None:
    """Write the record. digests: of the landscapes by name."""
    content = {
        "optuna": optuna.__version__,
        "machine": machine,
        "landscapes": digests,
        "traces": [asdict(trace) for trace in traces],
    }
    text = json.dumps(content, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load(path: Path, digest_of: Callable[[str], str | None]) -> list[Trace]:
    """The recorded traces of the landscapes that are at hand, which digest_of gives for a name.

    Raises StaleRecordError where one has changed since, or there is no record.
    """
    if not path.exists():
        raise StaleRecordError(f"there is no {path.name}: record the peers with --peers")
    content = json.loads(gzip.decompress(path.read_bytes()))
    at_hand = set()
    for name, recorded in content["landscapes"].items():
        digest = digest_of(name)
        if digest is None:
            continue
        if digest != recorded:
            raise StaleRecordError(
                f"{path.name} is of another landscape {name}: digest {recorded[:12]}, but it is "
                f"{digest[:12]} now; record the peers again with --peers"
            )
        at_hand.add(name)
    return [Trace(**trace) for trace in content["traces"] if trace["landscape"] in at_hand]
