"""Random search and Optuna's samplers, one accuracy at a time.

Optuna's get both objectives, accuracy up and memory down, and the limit as a constraint. Only a
candidate that fits and is new counts as an evaluation. A proposal that does not fit is told with
by how much it passes the limit and, for nothing, with its accuracy, as Optuna wants values; one
that was scored before is dropped as failed. After 20 such in a row the last is made to fit, by a
random walk to the smallest candidate. All of that is to the peers' advantage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial, TrialState

from benchmarks.search.landscapes import Floats, Rows
from benchmarks.search.problem import MAX_REJECTED, Problem, Row

OptunaSampler = Literal["tpe", "nsga2", "gp"]

_VIOLATION = "memory"


class RandomSearcher:
    """Candidates drawn evenly from each choice, those that do not fit drawn again."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._rng = np.random.default_rng(seed)
        self._known: set[bytes] = set()

    def ask(self) -> Row:
        for _ in range(MAX_REJECTED):
            row = self._problem.random(1, self._rng)[0]
            if self._problem.fits(row) and row.tobytes() not in self._known:
                return row
        return self._problem.feasible(row[None], self._rng)[0]

    def tell(self, row: Row, accuracy: float) -> None:
        self._known.add(row.tobytes())


class OptunaSearcher:
    """accuracy: of rows, for proposals that do not count as evaluations."""

    def __init__(
        self,
        problem: Problem,
        sampler: OptunaSampler,
        seed: int,
        accuracy: Callable[[Rows], Floats],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._problem = problem
        self._accuracy = accuracy
        self._rng = np.random.default_rng(seed)
        self._known: set[bytes] = set()
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(range(len(values)))
            for name, values in problem.landscape.choices.items()
        }
        self._study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=_optuna_sampler(sampler, seed)
        )
        self._trial: Trial | None = None

    def ask(self) -> Row:
        for _ in range(MAX_REJECTED):
            self._trial, row = self._propose()
            if row.tobytes() in self._known:
                self._study.tell(self._trial, state=TrialState.FAIL)
            elif self._problem.fits(row):
                return row
            else:
                self._tell_optuna(row, float(self._accuracy(row[None])[0]))
        row = self._problem.feasible(row[None], self._rng)[0]
        names = self._problem.landscape.choices
        self._study.enqueue_trial(dict(zip(names, row.tolist(), strict=True)))
        self._trial, row = self._propose()
        return row

    def tell(self, row: Row, accuracy: float) -> None:
        self._known.add(row.tobytes())
        self._tell_optuna(row, accuracy)

    def _propose(self) -> tuple[Trial, Row]:
        trial = self._study.ask(self._distributions)
        row = np.array([trial.params[name] for name in self._distributions], dtype=np.intp)
        return trial, self._problem.landscape.canonical(row[None])[0]

    def _tell_optuna(self, row: Row, accuracy: float) -> None:
        assert self._trial is not None
        peak_bytes = float(self._problem.peak_bytes(row[None])[0])
        limit_bytes = self._problem.limit_bytes
        self._trial.set_constraint(_VIOLATION, (peak_bytes - limit_bytes) / limit_bytes)
        self._study.tell(self._trial, [accuracy, peak_bytes])


def _optuna_sampler(name: OptunaSampler, seed: int) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.GPSampler(seed=seed)
