"""Search over a predictor of accuracy, as published: once after all scores, or in rounds.

- OfaSearcher: what the ofa package's EvolutionFinder does (arXiv 1908.09791), at an equal number
  of scored subnets. Four fifths of the budget are random ones that fit; they train the predictor.
  Then evolution (population 100, a quarter are parents, half of the children by mutation with
  probability 0.1, half by crossover) searches over it under each of ten memory limits up to the
  device's, and its best are scored. The budget has to be known: one run serves one budget.
- LinasSearcher: after Intel's LINAS (arXiv 2205.10358), rounds of 50. The first is random; before
  each other one a predictor is trained on all scores, NSGA-II searches over predicted accuracy
  and known memory, and what it finds is scored, 50 of its best that are new.
"""

from __future__ import annotations

import numpy as np

from benchmarks.search.front import survivors
from benchmarks.search.landscapes import Floats, Rows
from benchmarks.search.problem import Problem, Row
from benchmarks.search.searchers.peers import RandomSearcher
from benchmarks.search.searchers.predictors import Predict, fit_ridge

_POPULATION = 100
_PARENT_SHARE = 0.25
_MUTATION_PROBABILITY = 0.1
_RESOLUTION_PROBABILITY = 0.5
_MAX_GENERATIONS = 500
_PATIENCE = 50
_NUM_LIMITS = 10
_SCORED_SHARE = 0.2

_ROUND = 50
_INNER_GENERATIONS = 100
_MAX_BREEDINGS = 5
_FAR = 1e12


class _Told:
    """Random ones first; then batches that are planned from all that was told."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.rng = np.random.default_rng(seed)
        self.rows: list[Row] = []
        self.accuracies: list[float] = []
        self.planned: list[Row] = []
        self.random = RandomSearcher(problem, seed)

    def tell(self, row: Row, accuracy: float) -> None:
        self.random.tell(row, accuracy)
        self.rows.append(row)
        self.accuracies.append(accuracy)

    def new(self, rows: Rows) -> Rows:
        """Those not scored yet, each once, in their order."""
        known = {row.tobytes() for row in self.rows}
        distinct = {row.tobytes(): row for row in rows if row.tobytes() not in known}
        return np.array(list(distinct.values())).reshape(len(distinct), rows.shape[1])


class OfaSearcher(_Told):
    """budget: how many will be scored."""

    def __init__(self, problem: Problem, seed: int, budget: int) -> None:
        super().__init__(problem, seed)
        self._num_winners = max(1, round(_SCORED_SHARE * budget))
        self._num_random = budget - self._num_winners

    def ask(self) -> Row:
        if len(self.rows) == self._num_random:
            self.planned = self._winners()
        if len(self.rows) < self._num_random or not self.planned:
            return self.random.ask()
        return self.planned.pop(0)

    def _winners(self) -> list[Row]:
        """Those of the whole limit first, and with it as many under each limit."""
        problem = self.problem
        predict = fit_ridge(problem.landscape, np.array(self.rows), np.array(self.accuracies))
        smallest = least_bytes(problem, self.rng)
        num_limits = min(_NUM_LIMITS, self._num_winners)
        found: dict[bytes, Row] = {}
        for number in range(num_limits):
            limit = problem.limit_bytes - number / num_limits * (problem.limit_bytes - smallest)
            wanted = self._num_winners * (number + 1) // num_limits
            population = self.new(evolve(problem, predict, limit, self.rng))
            for row in population:
                if len(found) == wanted:
                    break
                found[row.tobytes()] = row
        return list(found.values())


class LinasSearcher(_Told):
    def ask(self) -> Row:
        if len(self.rows) < _ROUND:
            return self.random.ask()
        if not self.planned:
            self.planned = list(self._next_round())
        return self.planned.pop(0) if self.planned else self.random.ask()

    def _next_round(self) -> Rows:
        problem, rng = self.problem, self.rng
        rows, accuracies = np.array(self.rows), np.array(self.accuracies)
        predict = fit_ridge(problem.landscape, rows, accuracies)
        population = rows[survivors(accuracies, problem.peak_bytes(rows), _POPULATION)]
        extra = problem.feasible(problem.random(_POPULATION, rng), rng)
        population = np.concatenate([population, extra])
        seen = self.new(evolve_front(problem, predict, population, _INNER_GENERATIONS, rng))
        return seen[survivors(predict(seen), problem.peak_bytes(seen), _ROUND)]


def evolve_front(
    problem: Problem,
    predict: Predict,
    population: Rows,
    num_generations: int,
    rng: np.random.Generator,
) -> Rows:
    """All candidates that NSGA-II comes by, from this population on (Deb et al. 2002)."""
    seen = [population]
    size = max(_POPULATION, len(population))
    for _ in range(num_generations):
        children = _children(problem, population, problem.limit_bytes, rng)
        seen.append(children)
        both = np.unique(np.concatenate([population, children]), axis=0)
        population = both[survivors(predict(both), problem.peak_bytes(both), size)]
    return np.concatenate(seen)


def evolve(
    problem: Problem, predict: Predict, limit_bytes: float, rng: np.random.Generator
) -> Rows:
    """The last population (100, P), best first, as EvolutionFinder.run_evolution_search has it.

    It ends after 500 generations, or 50 without a better one. Where the smallest subnet does not
    fit a limit that others fit, some may not; they come last.
    """

    def value_of(rows: Rows) -> Floats:
        excess = problem.peak_bytes(rows) / limit_bytes - 1
        return np.where(excess > 0, -_FAR * excess, predict(rows))

    population = problem.feasible(problem.random(_POPULATION, rng), rng, limit_bytes)
    values = value_of(population)
    num_parents = round(_PARENT_SHARE * _POPULATION)
    best, best_generation = -np.inf, 0
    for generation in range(_MAX_GENERATIONS):
        order = np.argsort(-values, kind="stable")
        population, values = population[order], values[order]
        if values[0] > best:
            best, best_generation = float(values[0]), generation
        if generation - best_generation >= _PATIENCE:
            break
        parents = population[:num_parents]
        children = _children(problem, parents, limit_bytes, rng)
        population = np.concatenate([parents, children])
        values = np.concatenate([values[:num_parents], value_of(children)])
    return population[np.argsort(-values, kind="stable")]


def least_bytes(problem: Problem, rng: np.random.Generator) -> float:
    """Of what evolution finds to take the least: the smallest subnet need not be it."""
    winner = evolve(problem, lambda rows: -problem.peak_bytes(rows), problem.limit_bytes, rng)[:1]
    return float(problem.peak_bytes(winner)[0])


def _children(
    problem: Problem, parents: Rows, limit_bytes: float, rng: np.random.Generator
) -> Rows:
    """A population (100, P) that fits: bred until it does, at last made to fit."""
    fitting = parents[:0]
    for _ in range(_MAX_BREEDINGS):
        bred = _bred(problem, parents, rng)
        fits = problem.peak_bytes(bred) <= limit_bytes
        fitting = np.concatenate([fitting, bred[fits]])
        if len(fitting) >= _POPULATION:
            return fitting[:_POPULATION]
    others = problem.feasible(bred[~fits], rng, limit_bytes)
    return np.concatenate([fitting, others])[:_POPULATION]


def _bred(problem: Problem, parents: Rows, rng: np.random.Generator) -> Rows:
    """Twice a population; half are mutated, half crossed: each choice from one of two parents."""
    sizes = problem.landscape.sizes
    shape = (2 * _POPULATION, len(sizes))
    ones, others = (parents[rng.integers(len(parents), size=shape[0])] for _ in range(2))
    probabilities = np.full(len(sizes), _MUTATION_PROBABILITY)
    probabilities[list(problem.landscape.choices).index("resolution")] = _RESOLUTION_PROBABILITY
    mutated = np.where(rng.random(shape) < probabilities, rng.integers(sizes, size=shape), ones)
    crossed = np.where(rng.random(shape) < 0.5, ones, others)
    is_mutated = rng.random((shape[0], 1)) < 0.5
    return problem.landscape.canonical(np.where(is_mutated, mutated, crossed))
