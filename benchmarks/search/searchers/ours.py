"""This project's sampler, asked one by one or in batches, as a search's own study asks it."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial

from benchmarks.search.landscapes import Rows
from benchmarks.search.problem import Problem, Row
from search.sampler.breeding import Facts
from search.sampler.sampler import PredictorSampler


class OurSearcher:
    """batch_size: candidates asked for together, before the accuracy of any of them is told."""

    def __init__(self, problem: Problem, seed: int, batch_size: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        landscape = problem.landscape

        def facts(rows: Rows) -> Facts:
            return Facts(problem.peak_bytes(rows), landscape.macs(rows))

        self._landscape = landscape
        self._batch_size = batch_size
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in landscape.choices.items()
        }
        sampler = PredictorSampler(
            landscape.choices,
            facts,
            limit_bytes=problem.limit_bytes,
            chance=landscape.chance,
            canonical=landscape.canonical,
            num_images=landscape.num_images,
            seed=seed,
        )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._trials: list[Trial] = []

    def ask(self) -> Row:
        if not self._trials:
            self._trials = [self._study.ask(self._distributions) for _ in range(self._batch_size)]
        choices = self._landscape.choices
        chosen = self._trials[0].params
        row = np.array([values.index(chosen[name]) for name, values in choices.items()])
        return self._landscape.canonical(row[None])[0]

    def tell(self, row: Row, accuracy: float) -> None:
        self._study.tell(self._trials.pop(0), accuracy)
