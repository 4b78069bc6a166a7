"""Candidates as rows of numbers, so that tens of thousands can be handled at once.

A row holds, for each searched parameter, the index of its value. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.space.candidates import Candidate, SearchSpace

Rows = NDArray[np.intp]
"""Indices of values (N, P), the parameters in the order of SearchSpace.choices()."""


class Subnets(NamedTuple):
    """Of N candidates and each of B dynamic blocks (N, B): the indices of its kernel size and
    expand ratio, and whether it is there."""

    kernel_sizes: NDArray[np.intp]
    expand_ratios: NDArray[np.intp]
    is_there: NDArray[np.bool_]


class Encoding:
    """The rows of a space. names: of its P parameters."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.choices = space.choices()
        self.names = tuple(self.choices)
        self._indices = [
            {value: index for index, value in enumerate(values)}
            for values in self.choices.values()
        ]
        spec = space.supernet
        self.block_stages = np.repeat(
            np.arange(len(spec.stages)), [stage.depths[-1] for stage in spec.stages]
        )
        """The number of the stage that each block belongs to; the last one's apart (B,)."""
        self.block_positions = np.arange(len(self.block_stages))
        """Where in its stage each is, the last one apart (B,)."""
        self.block_positions -= np.array(spec.stage_starts)[self.block_stages]
        blocks = range(spec.num_dynamic_blocks)
        self._kernel_sizes = self._columns(f"kernel_size_{block}" for block in blocks)
        self._expand_ratios = self._columns(f"expand_ratio_{block}" for block in blocks)
        self._depths = self._columns(f"depth_{stage}" for stage in range(len(spec.stages)))

    def _columns(self, names: Iterable[str]) -> NDArray[np.intp]:
        """Where a parameter stands in a row; of one that is not searched, beyond its end."""
        places = {name: place for place, name in enumerate(self.names)}
        return np.array([places.get(name, len(places)) for name in names])

    def subnets(self, rows: Rows) -> Subnets:
        """What rows say of subnets."""
        found = np.pad(rows, ((0, 0), (0, 1)))  # not searched: the first value, the only one
        depth_indices = found[:, self._depths]
        depths = np.empty_like(depth_indices)
        for number, stage in enumerate(self.space.supernet.stages):
            depths[:, number] = np.array(stage.depths)[depth_indices[:, number]]
        is_there = np.ones((len(rows), len(self._kernel_sizes)), np.bool_)
        others = slice(len(self.block_stages))  # but the last one
        is_there[:, others] = self.block_positions < depths[:, self.block_stages]
        return Subnets(found[:, self._kernel_sizes], found[:, self._expand_ratios], is_there)

    def rows(self, candidates: Sequence[Candidate]) -> Rows:
        """One row (P,) for each candidate."""
        encoded = [self.space.encode(candidate) for candidate in candidates]
        found = [
            [indices[one[name]] for name, indices in zip(self.names, self._indices, strict=True)]
            for one in encoded
        ]
        return np.array(found, dtype=np.intp).reshape(len(candidates), len(self.names))

    def candidate(self, row: NDArray[np.intp]) -> Candidate:
        """The candidate of a row (P,), with the slow plan."""
        return self.space.decode(
            {
                name: values[index]
                for (name, values), index in zip(self.choices.items(), row.tolist(), strict=True)
            }
        )

    def canonical(self, rows: Rows) -> Rows:
        """The same networks, with entries of absent blocks set to the smallest values."""
        padded = np.pad(rows, ((0, 0), (0, 1)))
        block, absent = np.nonzero(~self.subnets(rows).is_there.T)
        for columns in (self._kernel_sizes, self._expand_ratios):
            padded[absent, columns[block]] = 0
        return padded[:, :-1].copy()
