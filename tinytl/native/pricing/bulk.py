"""Bytes of the trainer's process for many networks at once: tinytl.native.pricing.process's
figures, to the byte, with numpy.

The networks are alike but for their blocks. What each block takes at its place is looked up once;
then a network is a row of numbers into these tables, and a plan's step is gone through for all
networks together. See tinytl.accounting.bulk_memory, which does so for the torch engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinytl.description.config import BlockConfig, NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import OptimizerBits, Plan, TrainedBits
from tinytl.native.arena import placed_bytes
from tinytl.native.package import process_bytes
from tinytl.native.pricing.network import Line, Program, segments_of
from tinytl.native.pricing.places import Places, Stretch, stretches_of
from tinytl.native.pricing.rows import PLAIN, AnyCost, PartCosts, Row
from tinytl.native.pricing.step import Amount, Ways, peak

Bytes = NDArray[np.int64]
Choices = NDArray[np.intp]
Options = Sequence[BlockConfig | None]
"""What may be at a place: blocks of one input, output and stride, or None for nothing."""
_OptionParts = list[list[AnyCost | None]]

_NEVER = -(1 << 60)
"""The peak of a block that is not there."""
_ABSENT = Row(_NEVER, 0, 0, _NEVER, 0, 0, True, True)
_CHUNK = 4096
"""Networks that are gone through together: what they take stays in the processor's cache."""


class BulkProcess:
    """Networks like network, but with options[i] at place i of its blocks.

    Which places must have a block: see tinytl.accounting.bulk_memory.BulkNetworks. Raises
    ConfigError, by name, for what the trainer does not do.
    """

    def __init__(
        self,
        network: NetworkConfig,
        options: Sequence[Options],
        method: Method,
        resolution: int,
        *,
        image_size: int | None = None,
    ) -> None:
        places = [place for place, blocks in enumerate(options) if any(blocks)]
        typical = tuple(next(filter(None, options[place])) for place in places)
        self._places = np.array(places)
        self._options = [options[place] for place in places]
        self._line = Line(replace(network, blocks=typical), resolution, image_size)
        self._method = method
        self._heirs = self._find_heirs()
        self._tables = lru_cache(maxsize=256)(self._make_tables)
        self._stored = lru_cache(maxsize=8)(self._make_stored)

    def peak_bytes(self, choices: Choices, plan: Plan) -> Bytes:
        """process_memory(...).total_bytes of each network with the plan.

        choices (networks, places): the option that is at each place. Raises ConfigError for a plan
        with a stretch beyond the networks' stages.
        """
        found = np.empty(len(choices), np.int64)
        for start in range(0, len(choices), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            found[chunk] = self._price(self._index(choices[chunk]), plan)
        return found

    def _price(self, index: Choices, plan: Plan) -> Bytes:
        tables, program = self._tables(plan)
        state, frozen, records, worst = self._stored(
            plan.optimizer_bits, plan.trained_bits
        ).look_up(index)
        ways = []
        for table in tables:
            way, its_records = table.look_up(index)
            ways.append(way)
            records += its_records

        def note(amount: Amount) -> None:
            np.maximum(worst, amount, out=worst)

        note(program.head.evaluation_bytes())
        peak([table.stretch for table in tables], ways, program.ports_bytes, note)
        _, of_head = program.head.stored.state(plan.optimizer_bits, plan.trained_bits)
        arena = state + of_head + placed_bytes(worst)
        found: Bytes = process_bytes(arena, program.mapped_bytes(frozen, records))
        return found

    def _find_heirs(self) -> dict[int, int]:
        """Where a stretch may begin with a part that is not everywhere, the next part that is, its
        heir, begins the stretch in the other networks; by the first part. An heir has each option
        twice, the second time for these networks."""
        stages = self._line.stages
        everywhere = [True, *(None not in its for its in self._options), True]
        return {
            part: everywhere.index(True, part)
            for part in range(1, len(everywhere))
            if stages[part] != stages[part - 1] and not everywhere[part]
        }

    def _index(self, choices: Choices) -> Choices:
        """(parts, networks): the option of each part. The stem and the tail have one, before those
        of an heir."""
        index = np.zeros((len(self._line.stages), len(choices)), np.intp)
        index[1:-1] = choices[:, self._places].T
        for first, heir in self._heirs.items():
            is_absent = np.array([block is None for block in self._options[first - 1]])
            count = 1 if heir == len(index) - 1 else len(self._options[heir - 1])
            index[heir] += count * is_absent[index[first]]
        return index

    def _part_options(self, costs: PartCosts) -> _OptionParts:
        stem, first, *_, tail = self._line.parts(costs)
        assert len(self._options[0]) == 1, "the first block is the same everywhere"
        blocks: _OptionParts = [
            [None if block is None else costs.block(block, size) for block in its]
            for its, size in zip(self._options[1:], self._line.sizes[1:], strict=True)
        ]
        return [[stem], [first], *blocks, [tail]]

    def _make_tables(self, plan: Plan) -> tuple[list[_Table], Program]:
        line = self._line
        costs = line.costs(self._method, plan.batch_size)
        parts, options = line.parts(costs), self._part_options(costs)
        stretches = stretches_of(parts, line.stages, plan)
        program = Program.of(line, costs, plan, stretches[-1])
        tables = []
        for stretch in stretches:
            before, again = (
                None if places is None else self._columns(stretch, places, options)
                for places in segments_of(stretch, parts[stretch.start : stretch.stop])
            )
            turn = program.turn if stretch.is_last else None
            tables.append(_Table(stretch, before, again, turn))
        return tables, program

    def _columns(self, stretch: Stretch, places: Places, options: _OptionParts) -> _Columns:
        numbers = range(stretch.start, stretch.stop)
        rows: list[list[Row | None]] = [
            [None if part is None else places.row(position, part) for part in options[number]]
            for position, number in enumerate(numbers)
        ]
        heir = self._heirs.get(stretch.start)
        for number in set(self._heirs.values()) & set(numbers):
            position = number - stretch.start
            again = rows[position]
            if number == heir:
                again = [
                    None if part is None else places.first_row(position, part)
                    for part in options[number]
                ]
            rows[position] = [*rows[position], *again]
        return _Columns(stretch, rows)

    def _make_stored(self, optimizer_bits: OptimizerBits, trained_bits: TrainedBits) -> _Stored:
        options = self._part_options(self._line.costs(self._method, 1))
        for heir in self._heirs.values():
            options[heir] = [*options[heir], *options[heir]]
        return _Stored(options, optimizer_bits, trained_bits)


class _Stored:
    """Bytes of each part's state, frozen values and records, and its peak in evaluation."""

    def __init__(
        self, options: _OptionParts, optimizer_bits: OptimizerBits, trained_bits: TrainedBits
    ) -> None:
        def values(part: AnyCost | None) -> tuple[int, int, int, int]:
            if part is None:
                return 0, 0, 0, _NEVER
            row, stored = part.row(PLAIN), part.stored
            _, state = stored.state(optimizer_bits, trained_bits)
            return state, stored.frozen_bytes, stored.records + row.records, row.forward

        ends = np.cumsum([len(parts) for parts in options])
        self._offsets = np.array([0, *ends[:-1]], np.intp)[:, None]
        rows = [values(part) for parts in options for part in parts]
        self._columns = np.array(rows, np.int64).T.copy()

    def look_up(self, index: Choices) -> tuple[Bytes, Bytes, Bytes, Bytes]:
        places = index + self._offsets
        state, frozen, records = (column.take(places).sum(axis=0) for column in self._columns[:-1])
        return state, frozen, records, self._columns[-1].take(places).max(axis=0)


class _Columns:
    """The rows of a stretch's parts and their options in a segment, turned to columns."""

    def __init__(self, stretch: Stretch, rows: list[list[Row | None]]) -> None:
        self._parts = slice(stretch.start, stretch.stop)
        ends = np.cumsum([len(its) for its in rows])
        self._offsets = np.array([0, *ends[:-1]], np.intp)[:, None]
        flat = [(row or _ABSENT)[:6] for its in rows for row in its]
        self._columns = np.array(flat, np.int64).T.copy()

    def look_up(self, index: Choices) -> list[Bytes]:
        """(columns of Row) (parts, networks)."""
        places = index[self._parts] + self._offsets
        return [column.take(places) for column in self._columns]


class _Table:
    """A stretch's columns in its segments; see tinytl.native.pricing.process."""

    def __init__(
        self, stretch: Stretch, before: _Columns | None, again: _Columns | None, turn: Row | None
    ) -> None:
        self.stretch = stretch
        self._before, self._again, self._turn = before, again, turn

    def look_up(self, index: Choices) -> tuple[Ways, Bytes]:
        """And the bytes of records."""
        forward_peak: Amount = 0
        kept_sum: Amount = 0
        room_sum: Amount = 0
        records: Amount = 0
        tops: list[Bytes] = []
        if self._before is not None:
            forward, kept, room, backward, gradients, its_records = self._before.look_up(index)
            befores, kept_sum = _befores(kept)
            if self.stretch.is_single:
                forward += befores
                backward += befores
            forward_peak, room_sum = forward.max(axis=0), room.sum(axis=0)
            records = its_records.sum(axis=0)
        if self._again is not None:
            forward, kept, _, backward, gradients, its_records = self._again.look_up(index)
            befores, all_kept = _befores(kept)
            forward += befores
            backward += befores
            tops.append(forward.max(axis=0))
            if self._turn is not None:
                tops.append(all_kept + self._turn.forward)
            records = records + its_records.sum(axis=0)
        tops.append(backward.max(axis=0))
        waiting = gradients.sum(axis=0) + (self._turn.gradients if self._turn else 0)
        backward_peak = tops[0]
        for top in tops[1:]:
            backward_peak = np.maximum(backward_peak, top)
        return Ways(forward_peak, backward_peak, kept_sum, room_sum, waiting), records


def _befores(kept: Bytes) -> tuple[Bytes, Bytes]:
    """What the parts before each keep, and what all keep."""
    up_to = np.cumsum(kept, axis=0)
    return up_to - kept, up_to[-1]
