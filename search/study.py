"""The search: proposes candidates within the memory limit, learns from their accuracies.

Optuna's TPE by ask and tell. The trials are kept by the caller: a study rebuilt from those that
have finished proposes what the undisturbed one would have.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial

from search.bulk_pricing import BulkPricing
from search.errors import SearchError
from search.pricing import Price, cheapest, fastest_fit, network_of, price
from search.space import Candidate, Parameter, SearchSpace
from tinytl.compute import multiply_accumulates
from tinytl.errors import InfeasibleError
from tinytl.plan import Plan
from tinytl.units import format_bytes

BATCH_SIZE = 4
"""Trials proposed together, from the accuracies of all batches before them."""

_RANDOM_TRIALS = 8
"""So many accuracies TPE starts from; before, candidates are anchors and random ones."""

_MAX_ATTEMPTS = 32

optuna.logging.set_verbosity(optuna.logging.WARNING)


class _OldStudy:
    """One search for the most accurate candidate whose predicted peak is within the limit.

    finished: number, candidate and accuracy (None: it failed) of earlier trials. Raises
    InfeasibleError, with the smallest feasible bytes, where nothing fits.
    """

    def __init__(
        self,
        space: SearchSpace,
        price: Price,
        *,
        limit_bytes: int,
        seed: int,
        finished: Iterable[tuple[int, Candidate, float | None]] = (),
    ) -> None:
        self.space = space
        self.limit_bytes = limit_bytes
        self.seed = seed
        self._price = price
        self._smallest, smallest_bytes = cheapest(space, price)
        if smallest_bytes > limit_bytes:
            raise InfeasibleError(
                f"nothing fits {format_bytes(limit_bytes)} ({limit_bytes} bytes): the smallest "
                f"feasible limit is {format_bytes(smallest_bytes)} ({smallest_bytes} bytes)",
                smallest_feasible_bytes=smallest_bytes,
            )
        self._proposed: dict[int, tuple[Candidate, int]] = {}
        self._asked: set[int] = set()
        self._finished: dict[int, tuple[Candidate, float | None]] = {}
        for number, candidate, accuracy in finished:
            self._check_new(number)
            space.check(candidate)
            self._finished[number] = (candidate, accuracy)

    @property
    def num_finished(self) -> int:
        """Trials told, failed ones too."""
        return len(self._finished)

    def ask(self, count: int) -> list[tuple[int, Candidate, int]]:
        """At most count trials to run next: number, candidate, predicted peak bytes.

        Fewer, or none, where the rest of the batch has been asked for and not all of it told.
        """
        start = self._batch_start()
        numbers = [
            number
            for number in range(start, start + BATCH_SIZE)
            if number not in self._finished and number not in self._asked
        ][:count]
        if any(number not in self._proposed for number in numbers):
            self._propose_batch(start)
        self._asked.update(numbers)
        return [(number, *self._proposed[number]) for number in numbers]

    def tell(self, number: int, accuracy: float | None) -> None:
        """Record the accuracy, 0 to 1, of an asked trial; None where it could not be had."""
        self._check_new(number)
        if number not in self._asked:
            raise SearchError(f"trial {number} was never asked for")
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise SearchError(f"accuracy must be between 0 and 1 but got {accuracy!r}")
        self._finished[number] = (self._proposed[number][0], accuracy)

    def best(self) -> Candidate:
        """The candidate of the highest accuracy; of equal ones, the earliest."""
        scored = [
            (-accuracy, number)
            for number, (_, accuracy) in self._finished.items()
            if accuracy is not None
        ]
        if not scored:
            raise SearchError("no trial has an accuracy yet")
        return self._finished[min(scored)[1]][0]

    def _check_new(self, number: int) -> None:
        if number < 0 or number in self._finished:
            raise SearchError(f"trial {number} is told twice or has no valid number")

    def _batch_start(self) -> int:
        """Number of the first trial of the earliest batch that is not all told."""
        number = 0
        while number in self._finished:
            number += 1
        return number // BATCH_SIZE * BATCH_SIZE

    def _propose_batch(self, start: int) -> None:
        """Propose a whole batch from the trials before it, whatever of it is told already."""
        history = [self._finished[number] for number in range(start)]
        scored = [(c, accuracy) for c, accuracy in history if accuracy is not None]
        sampler = _Sampler(self.space, scored) if len(scored) >= _RANDOM_TRIALS else None
        known = {_chosen(candidate) for candidate, _ in history}
        anchors = self._anchors() if start == 0 else []
        for number in range(start, start + BATCH_SIZE):
            proposal = anchors.pop(0) if anchors else self._propose(number, sampler, known)
            known.add(_chosen(proposal[0]))
            self._proposed[number] = proposal

    def _anchors(self) -> list[tuple[Candidate, int]]:
        """The largest uniform subnet that fits at each resolution, from the largest on."""
        spec = self.space.supernet
        uniform = sorted(
            (
                (depth * expand_ratio, kernel_size, spec.uniform(kernel_size, expand_ratio, depth))
                for depth in spec.depths
                for expand_ratio in spec.expand_ratios
                for kernel_size in spec.kernel_sizes
            ),
            key=lambda entry: entry[:2],
            reverse=True,
        )
        anchors = []
        for resolution in reversed(self.space.resolutions):
            for _, _, subnet in uniform:
                fit = self._fit(self.space.candidate(subnet, resolution))
                if fit is not None:
                    anchors.append(fit)
                    break
        return anchors[:BATCH_SIZE]

    def _propose(
        self, number: int, sampler: _Sampler | None, known: set[Candidate]
    ) -> tuple[Candidate, int]:
        """A feasible candidate, new if one is found; chosen by (seed, number) and the history."""
        for attempt in range(_MAX_ATTEMPTS):
            seed = _derived_seed(self.seed, number, attempt)
            rng = random.Random(seed)
            if sampler is not None and attempt < _MAX_ATTEMPTS // 2:
                candidate = sampler.sample(seed)
            else:
                candidate = self.space.sample(rng)
            proposal = self._fit(candidate) or self._shrink(candidate, rng)
            if _chosen(proposal[0]) not in known:
                break
        return proposal

    def _fit(self, candidate: Candidate) -> tuple[Candidate, int] | None:
        return fastest_fit(candidate, self._price, self.limit_bytes)

    def _shrink(self, candidate: Candidate, rng: random.Random) -> tuple[Candidate, int]:
        """The first that fits, by bisection, on a random walk from candidate to the smallest."""
        walk = self._walk(candidate, rng)
        fitting = fastest_fit(walk[-1], self._price, self.limit_bytes)
        assert fitting is not None, "the walk ends at a candidate that fits"
        too_large, fits = 0, len(walk) - 1
        while fits - too_large > 1:
            middle = (too_large + fits) // 2
            found = self._fit(walk[middle])
            if found is None:
                too_large = middle
            else:
                fits, fitting = middle, found
        return fitting

    def _walk(self, candidate: Candidate, rng: random.Random) -> list[Candidate]:
        """From candidate to the smallest one, a choice of one parameter at each step."""
        parameters = self.space.encode(candidate)
        target = self.space.encode(self._smallest)
        paths: dict[str, list[Parameter]] = {}
        for name, values in self.space.choices().items():
            here, there = values.index(parameters[name]), values.index(target[name])
            direction = 1 if there > here else -1
            if here != there:
                paths[name] = [values[i + direction] for i in range(here, there, direction)]
        order = [name for name, path in paths.items() for _ in path]
        rng.shuffle(order)
        walk = [candidate]
        for name in order:
            parameters[name] = paths[name].pop(0)
            walk.append(self.space.decode(parameters))
        return walk


class _Sampler:
    """TPE over the searched parameters, given candidates with their accuracies."""

    def __init__(self, space: SearchSpace, scored: Sequence[tuple[Candidate, float]]) -> None:
        self._space = space
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in space.choices().items()
        }
        self._study = optuna.create_study(direction="maximize")
        for candidate, accuracy in scored:
            self._study.add_trial(
                create_trial(
                    params=space.encode(candidate),
                    distributions=self._distributions,
                    value=accuracy,
                )
            )

    def sample(self, seed: int) -> Candidate:
        # Without the liar, TPE looks at finished trials only, not at what was asked before.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=0, constant_liar=False
        )
        trial = self._study.ask(self._distributions)
        return self._space.decode(trial.params)


def _chosen(candidate: Candidate) -> Candidate:
    """The candidate apart from its plan, which follows from the limit."""
    return replace(candidate, plan=Plan.whole(1))


def _derived_seed(*parts: int) -> int:
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


# Temporary: the interface that the study will have.
SamplerName = Literal["predictor", "tpe", "nsga2", "gp", "random"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    number: int
    candidate: Candidate
    lean_peak_bytes: int
    accuracy: float | None
    num_images: int
    is_complete: bool


@dataclass(frozen=True, kw_only=True)
class Proposal:
    number: int
    candidate: Candidate
    peak_bytes: int
    lean_peak_bytes: int
    lean_plan: Plan
    macs: int


class Study:
    def __init__(
        self,
        space: SearchSpace,
        pricing: BulkPricing,
        *,
        limit_bytes: int,
        mac_limit: int | None = None,
        seed: int,
        num_images: int,
        sampler: SamplerName = "predictor",
        finished: Iterable[Finished] = (),
    ) -> None:
        self._pricing, self._limit_bytes, self._space = pricing, limit_bytes, space
        self._done = {f.number: f for f in finished}
        self._asked: dict[int, Proposal] = {}
        self._old = _OldStudy(
            space,
            lambda c: price(space, c, pricing._method, pricing._num_classes).total_bytes,
            limit_bytes=limit_bytes,
            seed=seed,
            finished=[(f.number, f.candidate, f.accuracy) for f in self._done.values()],
        )

    @property
    def num_finished(self) -> int:
        return self._old.num_finished

    def ask(self, count: int) -> list[Proposal]:
        found = []
        for number, candidate, peak_bytes in self._old.ask(count):
            lean, lean_bytes = self._pricing.lean(candidate, self._limit_bytes)
            network = network_of(
                self._space.supernet, candidate, self._pricing._method, self._pricing._num_classes
            )
            self._asked[number] = Proposal(
                number=number,
                candidate=candidate,
                peak_bytes=peak_bytes,
                lean_peak_bytes=lean_bytes,
                lean_plan=lean.plan,
                macs=multiply_accumulates(network, candidate.resolution),
            )
            found.append(self._asked[number])
        return found

    def tell(
        self,
        number: int,
        accuracy: float | None,
        *,
        num_images: int | None = None,
        is_complete: bool = True,
    ) -> None:
        self._old.tell(number, accuracy)
        proposal = self._asked[number]
        self._done[number] = Finished(
            number=number,
            candidate=proposal.candidate,
            lean_peak_bytes=proposal.lean_peak_bytes,
            accuracy=accuracy,
            num_images=num_images or 0,
            is_complete=is_complete,
        )

    def front(self, below: int | None = None) -> list[Finished]:
        best, found = -1.0, []
        done = [
            f
            for f in self._done.values()
            if f.is_complete
            and f.accuracy is not None
            and f.lean_peak_bytes <= self._limit_bytes
            and (below is None or f.number < below)
        ]
        for f in sorted(done, key=lambda f: (f.lean_peak_bytes, -(f.accuracy or 0), f.number)):
            if (f.accuracy or 0) > best:
                found.append(f)
                best = f.accuracy or 0
        return found

    def stands_still(self, patience: int) -> bool:
        return self.front() == self.front(below=self.num_finished - patience)
