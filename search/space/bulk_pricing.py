"""Lean peaks and multiply-accumulates of many candidates at once, exactly, with numpy.

Candidates are rows: for each parameter of SearchSpace.choices, in its order, the index of the
value. Entries of blocks that are not there mean nothing. No torch here: the web process prices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.space.architecture import Subnet
from search.space.bounds import NO_BOUNDS, Bounds
from search.space.candidates import Candidate, SearchSpace
from search.space.encoding import Encoding, Rows
from search.space.lite_residual_sizes import method_of
from search.space.pricing import network_of, price, smallest_feasible
from tinytl.accounting.bulk_memory import BulkNetworks, Bytes, Choices
from tinytl.accounting.compute import part_multiply_accumulates
from tinytl.accounting.inference_memory import WEIGHTS, graph_parts
from tinytl.accounting.model_size import part_model_bytes
from tinytl.accounting.planner import plans, step_time
from tinytl.description.config import BlockConfig, LiteResidualSize
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.native.pricing.bulk import BulkProcess

Blocks = tuple[BlockConfig | None, ...]

OUT_OF_BOUNDS = 1 << 60
"""More than any memory."""

PlansOf = Callable[[LiteResidualSize | None], tuple[Plan, ...]]
"""For candidates with lite residuals of a size."""

_MAX_LEAN_PLANS = 8
_NUM_SAMPLED = 24
"""Subnets at a resolution, and of a size of lite residuals, that lean plans are chosen by."""


class BulkPricing:
    """Prices of a space's candidates, trained with a method for a number of classes.

    A lean peak is the least predicted peak over lean_plans, of candidates alike in having lite
    residuals or none; or, where that is above the limit, over them and the same with trained
    weights in 16 bits.
    """

    def __init__(
        self,
        space: SearchSpace,
        method: Method,
        num_classes: int,
        *,
        bounds: Bounds = NO_BOUNDS,
    ) -> None:
        """Candidates that are not within the bounds cost OUT_OF_BOUNDS."""
        self._space = space
        self._bounds = bounds
        self._method = method
        self._num_classes = num_classes
        self._encoding = Encoding(space)
        stages = space.supernet.block_stages
        self._num_ratios = np.array([len(stage.expand_ratios) for stage in stages])
        self._num_options = self._num_ratios * [len(stage.kernel_sizes) for stage in stages]
        """Of each block, beside that it is not there."""
        self._group = lru_cache(maxsize=None)(self._make_group)

    def lean_plans(self, size: LiteResidualSize | None) -> tuple[Plan, ...]:
        """Of candidates with lite residuals of this size, with trained values in 32 bits, fastest
        first; see the function."""
        sizes = self._space.lite_residual_sizes
        alike = tuple(each for each in sizes if (each is None) == (size is None))
        space = replace(self._space, lite_residual_sizes=alike)
        return lean_plans(space, self._method, self._num_classes)

    def lean_peak_bytes(self, rows: Rows, limit_bytes: int) -> Bytes:
        """The lean peak of each row."""
        peaks = self._least(rows, self.lean_plans)
        above = np.flatnonzero(peaks > limit_bytes)
        peaks[above] = np.minimum(peaks[above], self._least(rows[above], self._rounded_plans))
        for most_bytes, found in (
            (self._bounds.model_bytes, self.model_bytes),
            (self._bounds.inference_bytes, self.inference_bytes),
        ):
            if most_bytes is not None:
                peaks[found(rows) > most_bytes] = OUT_OF_BOUNDS
        return peaks

    def lean(self, candidate: Candidate, limit_bytes: int) -> tuple[Candidate, int]:
        """The candidate with the plan that its lean peak is of, and that peak."""
        size = candidate.lite_residual
        planned, peak_bytes = self._leanest(candidate, self.lean_plans(size))
        if peak_bytes > limit_bytes:
            rounded, rounded_bytes = self._leanest(candidate, self._rounded_plans(size))
            if rounded_bytes < peak_bytes:
                return rounded, rounded_bytes
        return planned, peak_bytes

    def price_bytes(self, candidate: Candidate) -> int:
        """Predicted peak training bytes of one candidate with its plan."""
        if not self.is_within_bounds(candidate):
            return OUT_OF_BOUNDS
        return price(self._space, candidate, self._method, self._num_classes).total_bytes

    def peak_bytes(self, rows: Rows, plan: Plan) -> Bytes:
        """search.space.pricing.price(...).total_bytes of each row with the plan."""
        return self._least(rows, lambda _: (plan,))

    def is_within_bounds(self, candidate: Candidate) -> bool:
        """Whether it takes no more than it may, whatever its plan."""
        if not self._bounds:
            return True
        network = network_of(self._space.supernet, candidate, self._method, self._num_classes)
        return not self._bounds.excess_bytes(network, self._method, candidate.resolution)

    def model_bytes(self, rows: Rows) -> Bytes:
        """tinytl.accounting.model_size.model_bytes of each row."""
        found = np.empty(len(rows), np.int64)
        for group, members, choices in self._groups(rows):
            found[members] = group.model_bytes.sums(choices)
        return found

    def inference_bytes(self, rows: Rows) -> Bytes:
        """tinytl.accounting.inference_memory.process_bytes of each row."""
        found = np.empty(len(rows), np.int64)
        for group, members, choices in self._groups(rows):
            of_parts = group.added_bytes.sums(choices) + group.running_bytes.largest(choices)
            found[members] = WEIGHTS.fixed + of_parts
        return found

    def macs(self, rows: Rows) -> NDArray[np.int64]:
        """tinytl.accounting.compute.multiply_accumulates of each row."""
        found = np.empty(len(rows), np.int64)
        for group, members, choices in self._groups(rows):
            found[members] = group.macs.sums(choices)
        return found

    def _rounded_plans(self, size: LiteResidualSize | None) -> tuple[Plan, ...]:
        return tuple(replace(plan, trained_bits=16) for plan in self.lean_plans(size))

    def _least(self, rows: Rows, plans_of: PlansOf) -> Bytes:
        found = np.empty(len(rows), np.int64)
        for group, members, choices in self._groups(rows):
            its_plans = plans_of(group.size)
            peaks = [group.networks.peak_bytes(choices, plan) for plan in its_plans]
            found[members] = np.min(peaks, axis=0)
        return found

    def _leanest(self, candidate: Candidate, its_plans: tuple[Plan, ...]) -> tuple[Candidate, int]:
        priced = (
            (planned, self.price_bytes(planned))
            for planned in (replace(candidate, plan=plan) for plan in its_plans)
        )
        return min(priced, key=lambda pair: pair[1])

    def _groups(self, rows: Rows) -> Iterator[tuple[_Group, Rows, Choices]]:
        """Rows that share maps and modules: numbers of the rows, and their choices of blocks."""
        choices = self._choices(rows)
        sizes = rows[:, -1] if self._method.uses_lite_residual else np.zeros(len(rows), np.intp)
        shape = (len(self._space.resolutions), len(self._space.lite_residual_sizes))
        numbers = np.ravel_multi_index((rows[:, -2], sizes), shape)
        for number in np.unique(numbers):
            members = np.flatnonzero(numbers == number)
            key = (int(index) for index in np.unravel_index(number, shape))
            yield self._group(*key), members, choices[members]

    def _choices(self, rows: Rows) -> Choices:
        """(rows, blocks) of the network: the option at each place."""
        found = self._encoding.subnets(rows)
        options = found.kernel_sizes * self._num_ratios + found.expand_ratios
        choices = np.zeros((len(rows), len(self._num_options) + 1), np.intp)
        choices[:, 1:] = np.where(found.is_there, options, self._num_options)
        return choices

    def _make_group(self, resolution_index: int, size_index: int) -> _Group:
        space, spec = self._space, self._space.supernet
        resolution = space.resolutions[resolution_index]
        size = space.lite_residual_sizes[size_index]
        networks = [
            network_of(
                spec, space.candidate(subnet, resolution, size), self._method, self._num_classes
            )
            for subnet in self._full_subnets()
        ]
        its_method = method_of(self._method, size)
        graphs = [graph_parts(network, resolution) for network in networks]
        kind = BulkProcess if space.prices_process(self._method) else BulkNetworks
        bulk = kind(
            networks[0],
            self._options([network.blocks for network in networks]),
            its_method,
            resolution,
            image_size=space.stored_size,
        )
        return _Group(
            networks=bulk,
            size=size,
            macs=self._table([part_multiply_accumulates(each, resolution) for each in networks]),
            model_bytes=self._table([part_model_bytes(each, its_method) for each in networks]),
            added_bytes=self._table([[p.added_bytes(WEIGHTS) for p in parts] for parts in graphs]),
            running_bytes=self._table(
                [[part.running_bytes(WEIGHTS) for part in parts] for parts in graphs]
            ),
        )

    def _table(self, amounts: list[list[int]]) -> _Table:
        """amounts: of a network's parts, for each of _full_subnets."""
        stem, static, *others = zip(*amounts, strict=True)
        tail, head = others[-2:]
        of_blocks = np.zeros((len(self._num_options) + 1, max(self._num_options) + 1), np.int64)
        of_blocks[0] = static[0]
        for place, (count, of_block) in enumerate(zip(self._num_options, others, strict=False), 1):
            of_blocks[place, :count] = of_block[:count]
        return _Table(of_blocks=of_blocks, of_others=(stem[0], tail[0], head[0]))

    def _full_subnets(self) -> Iterator[Subnet]:
        """Of full depth; in the one of a number each block has its option of that number, or its
        last where it has fewer."""
        spec = self._space.supernet
        for number in range(max(self._num_options)):
            options = np.minimum(number, self._num_options - 1)
            kernels, ratios = (its.tolist() for its in np.divmod(options, self._num_ratios))
            blocks = list(zip(spec.block_stages, kernels, ratios, strict=True))
            yield Subnet(
                kernel_sizes=tuple(stage.kernel_sizes[kernel] for stage, kernel, _ in blocks),
                expand_ratios=tuple(stage.expand_ratios[ratio] for stage, _, ratio in blocks),
                depths=tuple(stage.depths[-1] for stage in spec.stages),
            )

    def _options(self, networks: list[Blocks]) -> list[Blocks]:
        """What may be at each place. networks: blocks of _full_subnets."""
        spec = self._space.supernet
        static, *places = zip(*networks, strict=True)
        options: list[Blocks] = [
            blocks[:count] for blocks, count in zip(places, self._num_options, strict=True)
        ]
        positions = zip(self._encoding.block_stages, self._encoding.block_positions, strict=True)
        for place, (stage, position) in enumerate(positions):
            if position >= spec.stages[stage].depths[0]:
                options[place] = (*options[place], None)
        return [static[:1], *options]


class _Table(NamedTuple):
    """What each part of a network amounts to. of_blocks: (places, options); of_others: the stem,
    the tail, the classifier."""

    of_blocks: NDArray[np.int64]
    of_others: tuple[int, int, int]

    def sums(self, choices: Choices) -> NDArray[np.int64]:
        """Over all parts, of each row of choices."""
        found: NDArray[np.int64] = self._chosen(choices).sum(axis=1) + sum(self.of_others)
        return found

    def largest(self, choices: Choices) -> NDArray[np.int64]:
        """The amount of the part that has most, of each row of choices."""
        found: NDArray[np.int64] = np.maximum(
            self._chosen(choices).max(axis=1), max(self.of_others)
        )
        return found

    def _chosen(self, choices: Choices) -> NDArray[np.int64]:
        """(rows, places)."""
        found: NDArray[np.int64] = self.of_blocks[np.arange(choices.shape[1]), choices]
        return found


class _Group(NamedTuple):
    """Networks of one resolution and one size of lite residuals."""

    networks: BulkNetworks | BulkProcess
    size: LiteResidualSize | None
    macs: _Table
    model_bytes: _Table
    added_bytes: _Table
    running_bytes: _Table


@lru_cache(maxsize=64)
def lean_plans(space: SearchSpace, method: Method, num_classes: int) -> tuple[Plan, ...]:
    """The plans that lean peaks are looked for among, fastest first: at most 8.

    The space is of candidates with lite residuals, or of ones without.

    All have moments in 8 bits and trained values in 32. One splits the batch as the plan of the
    smallest feasible candidate does. The others are added as they lower, on average, the least
    peaks of a fixed sample of subnets most, until these are what the whole menu gives.
    """
    menu = [
        plan
        for plan in plans(space.batch_size)
        if plan.optimizer_bits == 8 and plan.trained_bits == 32
    ]
    smallest, _ = smallest_feasible(space, method, num_classes)
    chosen = [menu.index(replace(smallest.plan, optimizer_bits=8, trained_bits=32))]
    pricing = BulkPricing(space, method, num_classes)
    rows = _sampled_rows(space)
    peaks = np.array([pricing.peak_bytes(rows, plan) for plan in menu])
    least = peaks.min(axis=0)
    while len(chosen) < _MAX_LEAN_PLANS and (peaks[chosen].min(axis=0) > least).any():
        so_far = peaks[chosen].min(axis=0)
        chosen.append(int(np.argmin((np.minimum(peaks, so_far) / least).mean(axis=1))))
    return tuple(sorted((menu[number] for number in chosen), key=step_time))


def _sampled_rows(space: SearchSpace) -> Rows:
    """Subnets at every resolution, with the first and the last size of lite residuals."""
    rng = np.random.default_rng(0)
    counts = [len(values) for values in space.choices().values()]
    num_resolutions, num_sizes = counts[-2:]
    sizes = sorted({0, num_sizes - 1})
    shape = (num_resolutions, len(sizes), _NUM_SAMPLED, len(counts))
    rows = rng.integers(counts, size=shape, dtype=np.intp)
    rows[:, :, 0], rows[:, :, 1] = 0, np.array(counts) - 1  # the smallest and the largest subnet
    rows[..., -2] = np.arange(num_resolutions)[:, None, None]
    rows[..., -1] = np.array(sizes)[:, None]
    return rows.reshape(-1, len(counts))
