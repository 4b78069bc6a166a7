"""The Optuna side of a study: its samplers are asked for candidates and told what came of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.sampler.breeding import Facts
from search.sampler.sampler import NUM_IMAGES, PredictorSampler
from search.space.candidates import Candidate
from search.space.encoding import Encoding, Rows

SamplerName = Literal["predictor", "tpe", "nsga2", "gp", "random"]
"""The project's own, and Optuna's that go with it."""

_RANDOM_TRIALS = 8
"""So many accuracies Optuna's samplers start from; before, they draw at random."""

_POPULATION_SIZE = 12
"""Of NSGA-II: a quarter of a job's usual trials; Optuna's 50 are more than all of them."""

_NEIGHBOURS_OF = 200
"""Candidates whose neighbours are looked at together: each has about a hundred."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Pricing(Protocol):
    """What candidates take; search.space.bulk_pricing.BulkPricing says it of real ones."""

    def price_bytes(self, candidate: Candidate) -> int:
        """Predicted peak training bytes with the candidate's plan."""

    def lean(self, candidate: Candidate, limit_bytes: int) -> tuple[Candidate, int]:
        """The candidate with its lean plan, and its predicted peak bytes."""

    def lean_peak_bytes(self, rows: Rows, limit_bytes: int) -> NDArray[np.int64]:
        """The same of many."""

    def macs(self, rows: Rows) -> NDArray[np.int64]:
        """Multiply-accumulates of one image's forward."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A trial that was told. accuracy: 0 to 1, on num_images of the validation images (None: on
    all of them). loss: the cross-entropy on these; infinite where it isn't known. is_complete:
    whether it was scored to the end; one given up before can't be chosen.
    """

    number: int
    candidate: Candidate
    accuracy: float
    loss: float = math.inf
    num_images: int | None = None
    is_complete: bool = True


class _Choice(CategoricalDistribution):
    """Never copied: Optuna copies trials deeply, which is most of what learning them takes."""

    def __deepcopy__(self, memo: dict[int, object]) -> _Choice:
        return self


class _Nsga2(optuna.samplers.NSGAIISampler):
    """NSGA-II to whom a study that is rebuilt is the same: generations are counted, not noted at
    each trial, and parents are in one order."""

    def __init__(self, parents: list[list[FrozenTrial]], seed: int) -> None:
        """parents: of each generation up to now; what is found is added."""
        super().__init__(seed=seed, population_size=_POPULATION_SIZE)
        self._parents = parents

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return len(self._complete(study)) // _POPULATION_SIZE

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        start = generation * _POPULATION_SIZE
        return self._complete(study)[start : start + _POPULATION_SIZE]

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """From the first generation on: Optuna goes back to it, by recursion."""
        for earlier in range(len(self._parents), generation + 1):
            found = self.select_parent(study, earlier) if earlier else []
            self._parents.append(sorted(found, key=lambda trial: trial.number))
        return self._parents[generation]

    def _complete(self, study: optuna.Study) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


class TrialSampler:
    """Samples candidates by one of Optuna's samplers, from the trials learnt so far.

    Whatever is sampled, or taken in its place, counts as asked for until it is learnt. What comes
    to nothing is told as failed: Optuna's samplers look past it.
    """

    def __init__(
        self,
        name: SamplerName,
        encoding: Encoding,
        pricing: Pricing,
        *,
        limit_bytes: int,
        mac_limit: int | None,
        chance: float,
        num_images: int | None,
        seed: int,
    ) -> None:
        """As Study has them."""

        def facts(rows: Rows) -> Facts:
            peak_bytes = pricing.lean_peak_bytes(rows, limit_bytes)
            return Facts(peak_bytes.astype(float), pricing.macs(rows).astype(float))

        self._name = name
        self._encoding = encoding
        self._distributions: dict[str, BaseDistribution] = {
            name: _Choice(values) for name, values in encoding.choices.items()
        }
        self._predictor = PredictorSampler(
            encoding.choices,
            facts,
            distributions=self._distributions,
            limit_bytes=limit_bytes,
            mac_limit=np.inf if mac_limit is None else mac_limit,
            chance=chance,
            canonical=encoding.canonical,
            num_images=num_images,
            seed=seed,
        )
        self._study = optuna.create_study(direction="maximize")
        self._asked: list[tuple[optuna.Trial, Candidate]] = []
        self._parents: list[list[FrozenTrial]] = []
        self._num_learnt = 0

    def learn(self, trials: Sequence[Finished]) -> None:
        """All trials up to now, by number: those not learnt yet are told."""
        asked: dict[bytes, optuna.Trial] = {}
        for trial, candidate in self._asked:
            key = self._key(candidate)
            if key in asked:  # only the first counts: trials are told in the order of the record
                self._forget(trial)
            else:
                asked[key] = trial
        for finished in trials[self._num_learnt :]:
            open_trial = asked.pop(self._key(finished.candidate), None)
            if open_trial is None:
                self._add(finished)
            else:
                if finished.num_images is not None:
                    open_trial.set_user_attr(NUM_IMAGES, finished.num_images)
                self._study.tell(open_trial, finished.accuracy)
        for trial in asked.values():
            self._forget(trial)
        self._asked = []
        self._num_learnt = len(trials)

    def sample(self, seed: int, *, at_random: bool = False) -> Candidate:
        """The sampler's next, or one drawn at random."""
        return self._ask(optuna.samplers.RandomSampler(seed) if at_random else self._by(seed))

    def neighbour(self, known: Iterable[Candidate], seed: int) -> Candidate | None:
        """One within the limits that differs from one of these in a single choice, and is none of
        them; None where there is none."""
        rng = np.random.default_rng(seed)
        rows = rng.permutation(np.unique(self._encoding.rows(list(known)), axis=0))
        for some in np.array_split(rows, -(-len(rows) // _NEIGHBOURS_OF)):
            new = self._predictor.neighbours(some, known=rows)
            if len(new):
                candidate = self._encoding.candidate(rng.choice(new))
                self.take(candidate)
                return candidate
        return None

    def take(self, candidate: Candidate) -> None:
        """This one, whatever the sampler would say."""
        self._study.enqueue_trial(dict(self._encoding.space.encode(candidate)))
        self._ask(optuna.samplers.RandomSampler(0))

    def _by(self, seed: int) -> BaseSampler:
        if self._name == "predictor":
            return self._predictor
        if self._name == "random" or self._num_learnt < _RANDOM_TRIALS:
            return optuna.samplers.RandomSampler(seed)
        if self._name == "nsga2":
            return _Nsga2(self._parents, seed)
        if self._name == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=0)
        # Without the liar, TPE looks at finished trials only, not at what was asked before.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, constant_liar=False)

    def _ask(self, sampler: BaseSampler) -> Candidate:
        self._study.sampler = sampler
        trial = self._study.ask(self._distributions)
        candidate = self._encoding.space.decode(trial.params)
        if self._encoding.space.encode(candidate) == trial.params:
            self._asked.append((trial, candidate))
        else:  # learnt in its canonical form, as the record has it
            self._forget(trial)
            self.take(candidate)
        return candidate

    def _forget(self, trial: optuna.Trial) -> None:
        self._study.tell(trial, state=TrialState.FAIL)

    def _add(self, finished: Finished) -> None:
        """One that this study was never asked for: it is rebuilt, or another's is gone on with."""
        images = finished.num_images
        self._study.add_trial(
            create_trial(
                params=dict(self._encoding.space.encode(finished.candidate)),
                distributions=self._distributions,
                value=finished.accuracy,
                user_attrs={} if images is None else {NUM_IMAGES: images},
            )
        )

    def _key(self, candidate: Candidate) -> bytes:
        return self._encoding.rows([candidate]).tobytes()


def derived_seed(*parts: int) -> int:
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")
