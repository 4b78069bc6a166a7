"""Candidates as rows of numbers, so that tens of thousands can be handled at once.

A row holds, for each searched parameter, the index of its value. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.architecture import NUM_ELASTIC_STAGES
from search.space import Candidate, SearchSpace

Rows = NDArray[np.intp]
"""Indices of values (N, P), the parameters in the order of SearchSpace.choices()."""


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
        self._depth_columns = [
            self.names.index(f"depth_{stage}") for stage in range(NUM_ELASTIC_STAGES)
        ]

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
        found = rows.copy()
        spec = self.space.supernet
        depths = np.array(spec.depths)[rows[:, self._depth_columns]]
        for stage in range(NUM_ELASTIC_STAGES):
            for position in range(spec.max_depth):
                absent = depths[:, stage] <= position
                block = stage * spec.max_depth + position
                for kind in ("kernel_size", "expand_ratio"):
                    found[absent, self.names.index(f"{kind}_{block}")] = 0
        return found
