"""The searches of a comparison, side by side in processes: each searcher on each problem."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from benchmarks.search.landscapes import (
    PREDICTOR,
    Landscape,
    predictor_landscape,
    table_landscape,
)
from benchmarks.search.problem import Problem, Searcher
from benchmarks.search.searchers.evolution import LinasSearcher, OfaSearcher
from benchmarks.search.searchers.ours import OurSearcher
from benchmarks.search.searchers.peers import OptunaSearcher, RandomSearcher
from benchmarks.search.tables import FOLDER
from benchmarks.search.traces import BUDGETS, CHECKPOINTS, Trace, carry_out

LIMIT_SHARES = (0.25, 0.5, 0.75)
SEEDS = range(5)
OURS = ("ours", "ours, by 4")
PEERS = ("random", "TPE", "NSGA-II", "GP", "OFA", "LINAS")
TABLES = ("flowers17", "signdigits10")

_MAX_EVALUATIONS = {"GP": 100, "ours": 100}
"""Of those that take long."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search. predictor: the file of the landscape that needs one."""

    landscape: str
    limit_share: float
    searcher: str
    seed: int
    predictor: Path | None


@lru_cache
def landscape_named(name: str, predictor: Path | None) -> Landscape:
    if name == PREDICTOR:
        assert predictor is not None
        return predictor_landscape(predictor)
    return table_landscape(FOLDER / f"{name}.json")


def runs(searchers: Sequence[str], landscapes: Sequence[str], predictor: Path | None) -> list[Run]:
    """The slowest first."""
    found = [
        Run(landscape=name, limit_share=share, searcher=each, seed=seed, predictor=predictor)
        for name in landscapes
        for share in LIMIT_SHARES
        for each in searchers
        for seed in SEEDS
    ]
    return sorted(found, key=lambda run: (run.searcher != "GP", run.landscape != PREDICTOR))


def carry_out_all(
    these: Iterable[Run], num_processes: int, on_trace: Callable[[Trace], None]
) -> list[Trace]:
    """A trace of each run, as they come."""
    traces = []
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(trace_of, run) for run in these]):
            traces.append(future.result())
            on_trace(traces[-1])
    return traces


def trace_of(run: Run) -> Trace:
    """Carry out a search. OFA's is carried out for each budget anew, as it has to know it."""
    warnings.simplefilter("ignore")  # Optuna's, of samplers that are experimental
    landscape = landscape_named(run.landscape, run.predictor)
    problem = Problem(landscape=landscape, limit_share=run.limit_share)
    if run.searcher == "OFA":
        evaluations = list(BUDGETS)
        columns: tuple[list[float], ...] = ([], [], [])
        for budget in BUDGETS:
            found = carry_out(problem, OfaSearcher(problem, run.seed, budget), [budget])
            for column, values in zip(columns, found, strict=True):
                column += values
    else:
        most = _MAX_EVALUATIONS.get(run.searcher, CHECKPOINTS[-1])
        evaluations = [number for number in CHECKPOINTS if number <= most]
        columns = carry_out(problem, _searcher(run.searcher, problem, run.seed), evaluations)
    accuracy, hypervolume, seconds = columns
    return Trace(
        landscape=run.landscape,
        limit_share=run.limit_share,
        searcher=run.searcher,
        seed=run.seed,
        evaluations=evaluations,
        accuracy=accuracy,
        hypervolume=hypervolume,
        seconds=seconds,
    )


def _searcher(name: str, problem: Problem, seed: int) -> Searcher:
    accuracy = problem.landscape.accuracy
    if name == "random":
        return RandomSearcher(problem, seed)
    if name == "TPE":
        return OptunaSearcher(problem, "tpe", seed, accuracy)
    if name == "NSGA-II":
        return OptunaSearcher(problem, "nsga2", seed, accuracy)
    if name == "GP":
        return OptunaSearcher(problem, "gp", seed, accuracy)
    if name == "LINAS":
        return LinasSearcher(problem, seed)
    return OurSearcher(problem, seed, batch_size=4 if name == "ours, by 4" else 1)
