"""Lean peaks and multiply-accumulates of many candidates at once, exactly, with numpy.

Candidates are rows: for each parameter of SearchSpace.choices, in its order, the index of the
value. Entries of blocks that are not there mean nothing. No torch here: the web process prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.architecture import NUM_ELASTIC_STAGES
from search.encoding import Rows
from search.pricing import network_of, price, smallest_feasible
from search.space import Candidate, SearchSpace
from tinytl.bulk_memory import BulkNetworks, Bytes, Choices
from tinytl.compute import part_multiply_accumulates
from tinytl.config import BlockConfig
from tinytl.plan import Plan
from tinytl.planner import plans, step_time
from tinytl.trainable import Method

Blocks = tuple[BlockConfig | None, ...]

_MAX_LEAN_PLANS = 8
_NUM_SAMPLED = 24
"""Subnets at a resolution, and of a size of lite residuals, that lean plans are chosen by."""


class BulkPricing:
    """Prices of a space's candidates, trained with a method for a number of classes.

    A lean peak is the least predicted peak over lean_plans or, where that is above the limit, over
    them and the same with trained weights in 16 bits.
    """

    def __init__(self, space: SearchSpace, method: Method, num_classes: int) -> None:
        self._space = space
        self._method = method
        self._num_classes = num_classes
        spec = space.supernet
        self._num_blocks = spec.num_dynamic_blocks
        self._num_options = len(spec.kernel_sizes) * len(spec.expand_ratios)
        self._stages, self._positions = np.divmod(np.arange(self._num_blocks), spec.max_depth)
        self._group = lru_cache(maxsize=None)(self._make_group)

    @property
    def lean_plans(self) -> tuple[Plan, ...]:
        """With trained values in 32 bits, fastest first; see the function."""
        return lean_plans(self._space, self._method, self._num_classes)

    def lean_peak_bytes(self, rows: Rows, limit_bytes: int) -> Bytes:
        """The lean peak of each row."""
        peaks = self._least(rows, self.lean_plans)
        above = np.flatnonzero(peaks > limit_bytes)
        peaks[above] = np.minimum(peaks[above], self._least(rows[above], self._rounded_plans))
        return peaks

    def lean(self, candidate: Candidate, limit_bytes: int) -> tuple[Candidate, int]:
        """The candidate with the plan that its lean peak is of, and that peak."""
        planned, peak_bytes = self._leanest(candidate, self.lean_plans)
        if peak_bytes > limit_bytes:
            rounded, rounded_bytes = self._leanest(candidate, self._rounded_plans)
            if rounded_bytes < peak_bytes:
                return rounded, rounded_bytes
        return planned, peak_bytes

    def price_bytes(self, candidate: Candidate) -> int:
        """Predicted peak training bytes of one candidate with its plan."""
        return price(self._space, candidate, self._method, self._num_classes).total_bytes

    def peak_bytes(self, rows: Rows, plan: Plan) -> Bytes:
        """search.pricing.price(...).total_bytes of each row with the plan."""
        return self._least(rows, (plan,))

    def macs(self, rows: Rows) -> NDArray[np.int64]:
        """tinytl.compute.multiply_accumulates of each row."""
        found = np.empty(len(rows), np.int64)
        for group, members, choices in self._groups(rows):
            of_blocks = group.block_macs[np.arange(choices.shape[1]), choices]
            found[members] = group.other_macs + of_blocks.sum(axis=1)
        return found

    @property
    def _rounded_plans(self) -> tuple[Plan, ...]:
        return tuple(replace(plan, trained_bits=16) for plan in self.lean_plans)

    def _least(self, rows: Rows, its_plans: tuple[Plan, ...]) -> Bytes:
        found = np.empty(len(rows), np.int64)
        for group, members, choices in self._groups(rows):
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
        choices, depths = self._choices(rows)
        sizes = rows[:, -1] if self._method.uses_lite_residual else np.zeros(len(rows), np.intp)
        # a stretch begins where a stage has its second block, or with the next stage
        shallow = (depths[:, :NUM_ELASTIC_STAGES] == 1) @ (1 << np.arange(NUM_ELASTIC_STAGES))
        shape = (
            len(self._space.resolutions),
            len(self._space.lite_residual_sizes),
            1 << NUM_ELASTIC_STAGES,
        )
        numbers = np.ravel_multi_index((rows[:, -2], sizes, shallow), shape)
        for number in np.unique(numbers):
            members = np.flatnonzero(numbers == number)
            key = (int(index) for index in np.unravel_index(number, shape))
            yield self._group(*key), members, choices[members]

    def _choices(self, rows: Rows) -> tuple[Choices, NDArray[np.intp]]:
        """(rows, blocks) of the network: the option at each place; and each stage's depth."""
        spec, num_blocks = self._space.supernet, self._num_blocks
        kernels, ratios = rows[:, :num_blocks], rows[:, num_blocks : 2 * num_blocks]
        depths = np.ones((len(rows), NUM_ELASTIC_STAGES + 1), np.intp)  # of proxyless' last too
        first = 2 * num_blocks
        depths[:, :-1] = np.array(spec.depths)[rows[:, first : first + NUM_ELASTIC_STAGES]]
        is_there = self._positions < depths[:, self._stages]
        choices = np.zeros((len(rows), num_blocks + 1), np.intp)
        options = kernels * len(spec.expand_ratios) + ratios
        choices[:, 1:] = np.where(is_there, options, self._num_options)
        return choices, depths

    def _make_group(self, resolution_index: int, size_index: int, shallow: int) -> _Group:
        space, spec = self._space, self._space.supernet
        resolution = space.resolutions[resolution_index]
        size = space.lite_residual_sizes[size_index]
        subnets = [
            spec.uniform(kernel_size, expand_ratio, spec.max_depth)
            for kernel_size in spec.kernel_sizes
            for expand_ratio in spec.expand_ratios
        ]
        networks = [
            network_of(
                spec, space.candidate(subnet, resolution, size), self._method, self._num_classes
            )
            for subnet in subnets
        ]
        macs = [part_multiply_accumulates(network, resolution) for network in networks]
        stem, static, *others = zip(*macs, strict=True)
        tail, head = others[-2:]
        block_macs = np.zeros((self._num_blocks + 1, self._num_options + 1), np.int64)
        block_macs[0] = static[0]
        block_macs[1:, :-1] = others[:-2]
        bulk = BulkNetworks(
            networks[0],
            self._options([network.blocks for network in networks], shallow),
            self._method,
            resolution,
            image_size=space.resolutions[-1],
        )
        other_macs = stem[0] + tail[0] + head[0]
        return _Group(networks=bulk, block_macs=block_macs, other_macs=other_macs)

    def _options(self, networks: list[Blocks], shallow: int) -> list[Blocks]:
        """What may be at each place. networks: blocks at full depth, for every option.

        shallow: a bit for each stage, set where it has one block alone.
        """
        always = max(2, self._space.supernet.depths[0])  # blocks of a stage that is not shallow
        static, *places = zip(*networks, strict=True)
        options: list[Blocks] = [static[:1]]
        for stage, position, blocks in zip(self._stages, self._positions, places, strict=True):
            if position > 0 and shallow >> stage & 1:
                options.append((None,))
            else:
                options.append(blocks if position < always else (*blocks, None))
        return options


class _Group(NamedTuple):
    """Networks of one resolution and one size of lite residuals.

    block_macs (places, options): of each block; other_macs: of the rest.
    """

    networks: BulkNetworks
    block_macs: NDArray[np.int64]
    other_macs: int


@lru_cache(maxsize=64)
def lean_plans(space: SearchSpace, method: Method, num_classes: int) -> tuple[Plan, ...]:
    """The plans that lean peaks are looked for among, fastest first: at most 8.

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
