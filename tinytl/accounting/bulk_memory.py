"""Peak training bytes of many networks at once: tinytl.accounting.memory's figures, to the byte,
with numpy.

The networks are alike but for their blocks, as the subnets of a supernet are: at each place one of
some blocks, or none. What each may take is looked up in tinytl.accounting.step.costs once; then a
network is a row of numbers into these tables, and a plan's step is gone through for all networks
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinytl.accounting.memory import batch_bytes, decoding, small_tensors_bytes
from tinytl.accounting.step.costs import HeadCost, Row, SettingCosts, Sweep, costs_by_size
from tinytl.accounting.step.schedule import Amount, Step, StretchWays
from tinytl.accounting.step.stretches import Parts, cut
from tinytl.description.config import BlockConfig, NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import Plan

Bytes = NDArray[np.int64]
Choices = NDArray[np.intp]
Options = Sequence[BlockConfig | None]
"""What may be at a place: blocks of one input, output and stride, or None for nothing."""

_NEVER = -(1 << 60)
"""The peak of a block that is not there."""
_CHUNK = 4096
"""Networks that are gone through together: what they take stays in the processor's cache."""
_SWEEPS: tuple[Sweep, ...] = ("forward", "taped", "only", "first", "middle", "last")


class BulkNetworks:
    """Networks like network, but with options[i] at place i of its blocks.

    A place that offers None alone is skipped. A block must be there in every network where a
    stretch of the plan ends, and where learning begins. Where a stretch begins, none need be, up
    to the next place where one always is; without the first of these blocks the others may not be
    there either, as in a stage of a supernet. image_size, frozen_bits: as in
    tinytl.accounting.memory.peak_memory.
    """

    def __init__(
        self,
        network: NetworkConfig,
        options: Sequence[Options],
        method: Method,
        resolution: int,
        *,
        image_size: int | None = None,
        frozen_bits: int = 8,
    ) -> None:
        places = [place for place, blocks in enumerate(options) if any(blocks)]
        typical = tuple(next(filter(None, options[place])) for place in places)
        self._network = replace(network, blocks=typical)
        self._places = np.array(places)
        self._parts = _BulkParts(self._network, resolution, [options[place] for place in places])
        self._method = method
        self._frozen_bits = frozen_bits
        self._decoding_bytes = decoding(resolution, image_size or resolution).total
        self._planned = lru_cache(maxsize=256)(self._cut)

    def peak_bytes(self, choices: Choices, plan: Plan) -> Bytes:
        """peak_memory(...).total_bytes of each network with the plan.

        choices (networks, places): the option that is at each place. Raises ConfigError for a plan
        with a stretch beyond the networks' stages.
        """
        stretches, boundaries = self._planned(plan)
        head = stretches[-1].full.head
        assert head is not None
        standing = (
            sum(head.parameters)
            + batch_bytes(plan, self._parts.resolution)
            + small_tensors_bytes(self._network, plan)
        )
        peaks = np.empty(len(choices), np.int64)
        for start in range(0, len(choices), _CHUNK):
            index = self._index(choices[start : start + _CHUNK])
            ways = [_look_up(stretch, index) for stretch in stretches]
            worst = _Worst(ways, boundaries, self._decoding_bytes).total
            stored = sum(way.full.stored for way in ways)
            peaks[start : start + _CHUNK] = standing + stored + worst
        return peaks

    def _cut(self, plan: Plan) -> tuple[list[StretchWays[_Table]], list[int]]:
        costs = costs_by_size(
            self._network.norm,
            self._network.padding,
            self._method,
            self._frozen_bits,
            plan.optimizer_bits,
            plan.trained_bits,
        )
        return cut(self._parts, plan, costs)

    def _index(self, choices: Choices) -> Choices:
        """(parts, networks): the option of each part. The stem and the tail have one, before those
        of an heir."""
        index = np.zeros((len(self._parts.stages), len(choices)), np.intp)
        index[1:-1] = choices[:, self._places].T
        for first, heir in self._parts.heirs.items():
            is_absent = self._parts.absent[first][index[first]]
            index[heir] += self._parts.num_options(heir) * is_absent
        return index


class _OptionRows:
    """What a part takes, for each of its options; the cost too, as rows elsewhere follow.

    needs_input: whether it hands a gradient on.
    """

    def __init__(self, part: int, rows: Sequence[Row | None], needs_input: bool = True) -> None:
        self.part = part
        self.rows = rows
        self.needs_input = needs_input
        self.typical = next(filter(None, rows))

    @property
    def cost(self) -> _OptionRows:
        return self

    @property
    def gradients(self) -> int:
        return self.typical.gradients

    @property
    def keeps_input(self) -> bool:
        return self.typical.cost.keeps_input

    def row(
        self, needs_input: bool, grad_is_shared: bool, input_is_shared: bool, /
    ) -> _OptionRows:
        assert not grad_is_shared or None not in self.rows, f"part {self.part} is not everywhere"
        where = (needs_input, grad_is_shared, input_is_shared)
        rows = [row and row.cost.row(*where) for row in self.rows]
        return _OptionRows(self.part, rows, needs_input)

    def heir_of(self, first: _OptionRows, *, is_last: bool) -> _OptionRows:
        """With the second half of the rows as they are where the stretch begins with this part, as
        the first is not there."""
        half = len(self.rows) // 2
        begins = self.row(first.needs_input, is_last, True)
        return _OptionRows(self.part, [*self.rows[:half], *begins.rows[half:]])


class _Table:
    """The rows of a stretch's parts and their options, turned to columns; as
    tinytl.accounting.step.runs.Run.

    Part by part and option by option: offsets say where a part's begin. keeps_input: by the
    options of the first part, where they differ in it.
    """

    def __init__(
        self,
        parts: Sequence[_OptionRows],
        learns_from: int,
        head: HeadCost | None,
        keeps_input: NDArray[np.bool_] | None = None,
    ) -> None:
        self.keeps_input = keeps_input
        self.x, self.y = parts[0].typical.cost.x, parts[-1].typical.cost.y
        self.head = head
        self.learns_from = learns_from
        self.parts = slice(parts[0].part, parts[-1].part + 1)
        ends = np.cumsum([len(part.rows) for part in parts])
        self.offsets = np.array([0, *ends[:-1]], np.intp)[:, None]
        rows = np.array([_values(row) for part in parts for row in part.rows], np.int64).T.copy()
        before = self.offsets[learns_from, 0] if learns_from < len(parts) else rows.shape[1]
        self.kept, self.gradients, *peaks, self.stored = rows
        self.peaks = dict(zip(_SWEEPS, peaks, strict=True))
        self.kept[:before] = 0
        self.peaks["taped"][:before] = self.peaks["forward"][:before]


def _values(row: Row | None) -> tuple[int, ...]:
    """Bytes kept, of gradients, the peaks of all sweeps, bytes stored."""
    if row is None:
        return (0, 0, *(_NEVER,) * len(_SWEEPS), 0)
    peaks = (row.forward, row.taped, row.only, row.first, row.middle, row.last)
    return (row.kept, row.gradients, *peaks, row.frozen + row.trained + row.state)


class _Lookups:
    """A table's columns for some networks, as tinytl.accounting.step.runs.Run has them: (parts,
    networks)."""

    def __init__(self, table: _Table, index: Choices) -> None:
        self.x, self.y = table.x, table.y
        self._table = table
        self._index = index[table.parts] + table.offsets
        kept = table.kept.take(self._index)
        self._befores = np.cumsum(kept, axis=0)
        self.kept: Bytes = self._befores[-1].copy()
        self._befores -= kept
        self._up_to = np.cumsum(table.gradients.take(self._index), axis=0)
        self.gradients: Bytes = self._up_to[-1] + (table.head.gradients if table.head else 0)
        self._peaks: dict[Sweep, Bytes] = {}

    @property
    def stored(self) -> Bytes:
        """Bytes of frozen weights, trained values and the optimizer's state."""
        stored: Bytes = self._table.stored.take(self._index).sum(axis=0)
        return stored

    def peak(self, sweep: Sweep) -> Bytes:
        found = self._peaks.get(sweep)
        if found is None:
            found = self._peaks[sweep] = self._find_peak(sweep)
        return found

    def _find_peak(self, sweep: Sweep) -> Bytes:
        table = self._table
        start = 0 if sweep == "forward" or sweep == "taped" else table.learns_from
        totals = table.peaks[sweep].take(self._index[start:])
        if sweep != "forward":
            totals += self._befores[start:]
        if sweep == "last":
            totals += self._up_to[start:]
        elif sweep == "first":
            totals += self.gradients - self._up_to[start:]
        found: Bytes = totals.max(axis=0, initial=0)
        if sweep == "middle" and len(totals):
            found += self.gradients
        head = table.head
        if sweep == "forward" or sweep == "taped" or head is None:
            return found
        waiting = 0 if sweep == "only" or sweep == "first" else self.gradients
        turn = self.kept + waiting + head.peaks[sweep]
        return np.asarray(np.maximum(found + 2 * self.y, turn))


def _look_up(stretch: StretchWays[_Table], index: Choices) -> StretchWays[_Lookups]:
    table = stretch.full
    keeps_input: Amount = stretch.keeps_input
    if table.keeps_input is not None and table.learns_from == 0:
        keeps_input = table.keeps_input[index[table.parts.start]]
    return StretchWays(
        full=_Lookups(stretch.full, index),
        num_full=stretch.num_full,
        rest=None if stretch.rest is None else _Lookups(stretch.rest, index),
        recomputes=stretch.recomputes,
        learns=stretch.learns,
        keeps_input=keeps_input,
        needs_input=stretch.needs_input,
    )


class _BulkParts(Parts[_OptionRows, _Table]):
    """Of many networks. options: as BulkNetworks has them, but for skipped places.

    Where a stretch may begin with a part that is not everywhere, the next part that is, its heir,
    begins the stretch in the other networks. An heir has each option twice, the second time for
    these networks. heirs: by the first part.
    """

    __slots__ = ("_options", "absent", "heirs")

    def __init__(
        self, network: NetworkConfig, resolution: int, options: Sequence[Options]
    ) -> None:
        super().__init__(network, resolution)
        self._options = options
        everywhere = [True, *(None not in its for its in options), True]
        self.heirs = {
            part: everywhere.index(True, part)
            for part in range(1, len(everywhere))
            if self.stages[part] != self.stages[part - 1] and not everywhere[part]
        }
        self.absent = {
            part: np.array([block is None for block in options[part - 1]]) for part in self.heirs
        }

    def num_options(self, part: int) -> int:
        """Without an heir's second time."""
        return 1 if part in (0, len(self.stages) - 1) else len(self._options[part - 1])

    def rows(self, costs: SettingCosts, start: int, stop: int) -> list[_OptionRows]:
        heirs = self.heirs.values()
        return [
            _OptionRows(part, self._rows(costs, part) * (2 if part in heirs else 1))
            for part in range(start, stop)
        ]

    def _rows(self, costs: SettingCosts, part: int) -> list[Row | None]:
        if part == 0:
            return [self.stem(costs)]
        if part == len(self.stages) - 1:
            return [self.tail(costs)]
        of_size = costs.blocks(self.sizes[part - 1])
        return [of_size.row(block) if block else None for block in self._options[part - 1]]

    def way(self, rows: list[_OptionRows], learns_from: int, head: HeadCost | None) -> _Table:
        first = rows[0]
        if first.part not in self.heirs:
            return _Table(rows, learns_from, head)
        place = self.heirs[first.part] - first.part
        heir = rows[place] = rows[place].heir_of(first, is_last=place == len(rows) - 1)
        keeps_input = None
        if heir.keeps_input != first.keeps_input:
            keeps_input = np.where(self.absent[first.part], heir.keeps_input, first.keeps_input)
        return _Table(rows, learns_from, head, keeps_input)


class _Worst(Step[_Lookups]):
    """The worst moment of each network's step; at_least: of another moment, for all."""

    def __init__(
        self,
        stretches: Sequence[StretchWays[_Lookups]],
        boundaries: Sequence[int],
        at_least: int,
    ) -> None:
        self.total = np.full_like(stretches[0].full.kept, at_least)
        super().__init__(stretches, boundaries)

    def note(
        self,
        run: _Lookups,
        sweep: Sweep,
        boundaries: int,
        kept: Amount = 0,
        gradients: Amount = 0,
    ) -> None:
        self._raise_to(run.peak(sweep) + (boundaries + self.held), kept, gradients)

    def note_map(
        self, map_bytes: int, boundaries: int, kept: Amount = 0, gradients: Amount = 0
    ) -> None:
        self._raise_to(map_bytes + boundaries + self.held, kept, gradients)

    def _raise_to(self, total: Amount, kept: Amount, gradients: Amount) -> None:
        np.maximum(self.total, total + kept + self.kept + gradients, out=self.total)
