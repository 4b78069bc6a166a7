"""The search: proposes candidates within the limits, learns from their accuracies.

An Optuna study by ask and tell. The trials are kept by the caller: a study rebuilt from those that
have finished proposes what the undisturbed one would have.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.errors import SearchError
from search.sampler.front import front_of
from search.space.candidates import Candidate, Parameter, SearchSpace
from search.space.encoding import Encoding, Rows
from search.space.pricing import cheapest, fastest_fit
from search.study.optuna_trials import Finished, Pricing, SamplerName, TrialSampler, derived_seed
from tinytl.description.config import LiteResidualSize
from tinytl.description.plan import Plan
from tinytl.errors import InfeasibleError
from tinytl.units import format_bytes

BATCH_SIZE = 4
"""Trials proposed together, from the accuracies of all batches before them."""

_MAX_ATTEMPTS = 32


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A candidate to score, with the fastest plan within the limit, and what it takes.

    batch_start: the number of its batch's first trial; it is proposed from the trials before that
    one. lean_plan: the plan of least memory, and what it takes; macs: multiply-accumulates of one
    image's forward.
    """

    number: int
    batch_start: int
    candidate: Candidate
    peak_bytes: int
    lean_plan: Plan
    lean_peak_bytes: int
    macs: int


class Study:
    """One search for the best candidates within a limit of memory and, where one is given, of
    multiply-accumulates.

    num_images: of the validation split. chance: the accuracy of guessing. finished: earlier
    trials, the first num_inherited of them those of searches with other limits. Raises
    InfeasibleError, with the smallest feasible bytes, where nothing is within the limits.
    """

    def __init__(
        self,
        space: SearchSpace,
        pricing: Pricing,
        *,
        limit_bytes: int,
        mac_limit: int | None = None,
        seed: int,
        num_images: int | None = None,
        chance: float = 0.0,
        sampler: SamplerName = "predictor",
        finished: Iterable[Finished] = (),
        num_inherited: int = 0,
    ) -> None:
        self.space = space
        self.limit_bytes = limit_bytes
        self.mac_limit = mac_limit
        self._pricing = pricing
        self._seed = seed
        self._num_inherited = num_inherited
        self._encoding = Encoding(space)
        self._smallest = smallest_within(space, pricing, limit_bytes, mac_limit)
        self._sampler = TrialSampler(
            sampler,
            self._encoding,
            pricing,
            limit_bytes=limit_bytes,
            mac_limit=mac_limit,
            chance=chance,
            num_images=num_images,
            seed=seed,
        )
        self._proposed: dict[int, Proposal] = {}
        self._asked: set[int] = set()
        self._finished: dict[int, Finished] = {}
        for trial in finished:
            self._check_new(trial.number)
            space.check(trial.candidate)
            self._finished[trial.number] = trial

    @property
    def num_finished(self) -> int:
        """Trials told."""
        return len(self._finished)

    @property
    def finished(self) -> list[Finished]:
        """Trials told, by number."""
        return [self._finished[number] for number in sorted(self._finished)]

    def ask(self, count: int) -> list[Proposal]:
        """At most count trials to run next.

        Fewer, or none, where the rest of the batch has been asked for and not all of it told; or
        where all candidates within the limits are known.
        """
        start = self._batch_start()
        numbers = [
            number
            for number in range(start, start + BATCH_SIZE)
            if number not in self._finished and number not in self._asked
        ][:count]
        if any(number not in self._proposed for number in numbers):
            self._propose_batch(start)
        proposals = [self._proposed[number] for number in numbers if number in self._proposed]
        self._asked.update(proposal.number for proposal in proposals)
        return proposals

    def tell(
        self,
        number: int,
        accuracy: float,
        *,
        loss: float = math.inf,
        num_images: int | None = None,
        is_complete: bool = True,
    ) -> None:
        """Record the outcome of an asked trial, as Finished describes it."""
        self._check_new(number)
        if number not in self._asked:
            raise SearchError(f"trial {number} was never asked for")
        if not 0 <= accuracy <= 1:
            raise SearchError(f"accuracy must be between 0 and 1 but got {accuracy!r}")
        self._finished[number] = Finished(
            number=number,
            candidate=self._proposed[number].candidate,
            accuracy=accuracy,
            loss=loss,
            num_images=num_images,
            is_complete=is_complete,
        )

    def front(self) -> list[Finished]:
        """Trials within the limits and scored to the end, by rising lean peak bytes: each is
        better than all that take less, which is more accurate, or as accurate at a lower loss.
        """
        return self._front_of(self._finished.values())

    def best(self) -> Finished:
        """The most accurate; of equally accurate ones the one of lowest loss, and then the
        leanest."""
        front = self.front()
        if not front:
            raise SearchError("no trial within the limits has an accuracy yet")
        return front[-1]

    def stands_still(self, patience: int) -> bool:
        """Whether the latest so many trials have changed nothing about the front."""
        numbers = sorted(self._finished)
        if len(numbers) <= patience:
            return False
        earlier = [self._finished[number] for number in numbers[:-patience]]
        return self._front_of(earlier) == self.front()

    def _front_of(self, trials: Iterable[Finished]) -> list[Finished]:
        within = self._within(trials)
        merits = [(trial.accuracy, -trial.loss) for trial in within]
        ranks = {merit: rank for rank, merit in enumerate(sorted(set(merits)))}
        on_front = front_of(self._lean_peak_bytes(within), [ranks[merit] for merit in merits])
        return [within[index] for index in on_front]

    def _within(self, trials: Iterable[Finished]) -> list[Finished]:
        """Those scored to the end and within the limits, by number."""
        in_order = sorted(trials, key=lambda trial: trial.number)
        complete = [trial for trial in in_order if trial.is_complete]
        fits = self._fits(self._encoding.rows([trial.candidate for trial in complete]))
        return [trial for trial, it_fits in zip(complete, fits, strict=True) if it_fits]

    def _fits(self, rows: Rows) -> NDArray[np.bool_]:
        """Which are within the limits: (rows,)."""
        fits = self._pricing.lean_peak_bytes(rows, self.limit_bytes) <= self.limit_bytes
        if self.mac_limit is not None:
            fits &= self._pricing.macs(rows) <= self.mac_limit
        return fits

    def _lean_peak_bytes(self, trials: Sequence[Finished]) -> NDArray[np.int64]:
        rows = self._encoding.rows([trial.candidate for trial in trials])
        return self._pricing.lean_peak_bytes(rows, self.limit_bytes)

    def _check_new(self, number: int) -> None:
        if number < 0 or number in self._finished:
            raise SearchError(f"trial {number} is told twice or has no valid number")

    def _batch_start(self) -> int:
        """Number of the first trial of the earliest batch that is not all told."""
        number = first = self._num_inherited
        while number in self._finished:
            number += 1
        return first + (number - first) // BATCH_SIZE * BATCH_SIZE

    def _propose_batch(self, start: int) -> None:
        """Propose a batch from the trials before it, whatever of it is told already; less than a
        whole one where candidates run out."""
        self._sampler.learn([self._finished[number] for number in range(start)])
        known = {_chosen(self._finished[number].candidate) for number in range(start)}
        anchors = self._anchors() if self._is_first(start) else []
        for number in range(start, start + BATCH_SIZE):
            if anchors:
                candidate = anchors.pop(0)
                self._sampler.take(candidate)
            elif (sampled := self._sample(number, known)) is not None:
                candidate = sampled
            else:
                break
            known.add(_chosen(candidate))
            self._proposed[number] = self._proposal(number, start, candidate)

    def _is_first(self, start: int) -> bool:
        """Whether nothing within the limits is known to the batch that starts there."""
        inherited = [self._finished[number] for number in range(self._num_inherited)]
        return start == self._num_inherited and not self._within(inherited)

    def _proposal(self, number: int, batch_start: int, candidate: Candidate) -> Proposal:
        lean, lean_peak_bytes = self._pricing.lean(candidate, self.limit_bytes)
        return Proposal(
            number=number,
            batch_start=batch_start,
            candidate=candidate,
            peak_bytes=self._pricing.price_bytes(candidate),
            lean_plan=lean.plan,
            lean_peak_bytes=lean_peak_bytes,
            macs=self._macs(candidate),
        )

    def _anchors(self) -> list[Candidate]:
        """The largest uniform subnet within the limits at each resolution, from the largest on:
        that of most multiply-accumulates, with lite residual modules of whatever size. Where it
        is to be found out whether there should be modules, the last one is of the other kind.
        """
        space, sizes = self.space, self.space.lite_residual_sizes
        found = (self._largest(resolution, sizes) for resolution in reversed(space.resolutions))
        anchors = [anchor for anchor in found if anchor is not None][:BATCH_SIZE]
        kinds = {anchor.lite_residual is None for anchor in anchors}
        if None in sizes and len(kinds) == 1:
            others = [size for size in sizes if (size is None) not in kinds]
            of_other_kind = (self._largest(anchor.resolution, others) for anchor in anchors)
            other = next(filter(None, of_other_kind), None)
            anchors = anchors if other is None else [*anchors[: BATCH_SIZE - 1], other]
        return anchors

    def _largest(
        self, resolution: int, sizes: Sequence[LiteResidualSize | None]
    ) -> Candidate | None:
        """The uniform subnet within the limits of most multiply-accumulates, if there is one."""
        candidates = [
            self.space.candidate(subnet, resolution, size)
            for subnet in self.space.supernet.uniform_subnets
            for size in sizes
        ]
        rows = self._encoding.rows(candidates)
        macs = np.where(self._fits(rows), self._pricing.macs(rows), -1)
        return self._fit(candidates[int(macs.argmax())])

    def _sample(self, number: int, known: set[Candidate]) -> Candidate | None:
        """One that is new and within the limits, by seed, number and history, or None."""
        for attempt in range(_MAX_ATTEMPTS):
            seed = derived_seed(self._seed, number, attempt)
            sampled = self._sampler.sample(seed, at_random=attempt >= _MAX_ATTEMPTS // 2)
            fit = self._fit(sampled)
            candidate = fit or self._shrink(sampled, random.Random(seed))
            if fit is None:
                self._sampler.take(candidate)
            if _chosen(candidate) not in known:
                return candidate
        seed = derived_seed(self._seed, number, _MAX_ATTEMPTS)
        neighbour = self._sampler.neighbour(known, seed)
        return None if neighbour is None else self._fit(neighbour)

    def _fit(self, candidate: Candidate) -> Candidate | None:
        """With the fastest plan within the limit, if it is within the limits."""
        if not self._fits(self._encoding.rows([candidate]))[0]:
            return None
        fit = fastest_fit(candidate, self._pricing.price_bytes, self.limit_bytes)
        return None if fit is None else fit[0]

    def _macs(self, candidate: Candidate) -> int:
        return int(self._pricing.macs(self._encoding.rows([candidate]))[0])

    def _shrink(self, candidate: Candidate, rng: random.Random) -> Candidate:
        """The first that fits, by bisection, on a random walk from candidate to the smallest."""
        walk = self._walk(candidate, rng)
        fitting = self._fit(walk[-1])
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


def smallest_within(
    space: SearchSpace, pricing: Pricing, limit_bytes: int, mac_limit: int | None
) -> Candidate:
    """The candidate of least memory among those within mac_limit.

    Raises InfeasibleError, with the smallest feasible bytes, where it is not within the limits.
    """
    encoding = Encoding(space)

    def macs_of(candidate: Candidate) -> int:
        return int(pricing.macs(encoding.rows([candidate]))[0])

    smallest, _ = cheapest(space, pricing.price_bytes, macs_of, mac_limit)
    macs, (_, needed_bytes) = macs_of(smallest), pricing.lean(smallest, limit_bytes)
    if needed_bytes <= limit_bytes and (mac_limit is None or macs <= mac_limit):
        return smallest
    limits = f"{format_bytes(limit_bytes)} ({limit_bytes} bytes)"
    if mac_limit is not None:
        limits += f" and {mac_limit} multiply-accumulates"
    raise InfeasibleError(
        f"nothing fits {limits}: the smallest candidate takes {format_bytes(needed_bytes)} "
        f"({needed_bytes} bytes) and {macs} multiply-accumulates",
        smallest_feasible_bytes=needed_bytes,
    )


def _chosen(candidate: Candidate) -> Candidate:
    """The candidate apart from its plan, which follows from the limit."""
    return replace(candidate, plan=Plan.whole(1))
