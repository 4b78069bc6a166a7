"""Bytes of the trainer's whole process, predicted from a network's description.

Counted: the arena (trained values, moments, and what a step or an evaluation needs at its worst
moment), what is mapped of the program, the executable, the stack, the C library. Where buffers
lie in the arena is not planned here, so a little is added for what may be left free between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.native.arena import placed_bytes
from tinytl.native.package import process_bytes
from tinytl.native.pricing.network import Line, Program, segments_of
from tinytl.native.pricing.places import Stretch, stretches_of
from tinytl.native.pricing.rows import PLAIN, AnyCost, Row
from tinytl.native.pricing.step import Ways, peak


@dataclass(frozen=True, kw_only=True)
class ProcessMemory:
    """Predicted bytes of the whole process, and what they are (sums to the total).

    breakdown: trained_values and optimizer_state, together the trainer's state; step, what a step
    or an evaluation needs besides; program, what is mapped of it; trainer, the executable and
    what the system gives it.
    """

    total_bytes: int
    breakdown: dict[str, int]


def process_memory(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    image_size: int | None = None,
) -> ProcessMemory:
    """Predict the bytes of the trainer's process; the arguments are those of
    tinytl.accounting.memory.peak_memory.

    Raises ConfigError, by name, for what the trainer does not do.
    """
    line = Line(network, resolution, image_size)
    costs = line.costs(method, plan.batch_size)
    parts = line.parts(costs)
    stretches = stretches_of(parts, line.stages, plan)
    program = Program.of(line, costs, plan, stretches[-1])
    head = program.head
    ways, records = [], sum(part.stored.records for part in parts)
    for stretch in stretches:
        turn = program.turn if stretch.is_last else None
        way, its_records = _passed(stretch, tuple(parts[stretch.start : stretch.stop]), turn)
        ways.append(way)
        records += its_records
    worst = [head.evaluation_bytes()]
    peak(stretches, ways, program.ports_bytes, worst.append)
    for part in line.parts(line.costs(method, 1)):
        row = part.row(PLAIN)
        worst.append(row.forward)
        records += row.records
    bits = plan.optimizer_bits, plan.trained_bits
    states = [stored.state(*bits) for stored in (head.stored, *(part.stored for part in parts))]
    values, state = (sum(column) for column in zip(*states, strict=True))
    mapped = program.mapped_bytes(sum(part.stored.frozen_bytes for part in parts), records)
    step = placed_bytes(max(worst))
    total = int(process_bytes(state + step, mapped))
    breakdown = {
        "trained_values": values,
        "optimizer_state": state - values,
        "step": step,
        "program": mapped,
    }
    return ProcessMemory(
        total_bytes=total, breakdown={**breakdown, "trainer": total - sum(breakdown.values())}
    )


@lru_cache(maxsize=1 << 12)
def _passed(stretch: Stretch, parts: tuple[AnyCost, ...], turn: Row | None) -> tuple[Ways, int]:
    """A stretch's ways, and the bytes of its records. Plans of the menu share stretches."""
    before, again = (
        None if places is None else [places.row(i, part) for i, part in enumerate(parts)]
        for places in segments_of(stretch, parts)
    )
    records = sum(row.records for row in (*(before or ()), *(again or ())))
    return _ways(stretch, before, again, turn), records


def _ways(
    stretch: Stretch,
    before: Sequence[Row] | None,
    again: Sequence[Row] | None,
    turn: Row | None,
) -> Ways:
    """Of rows in the segment before the turn, and from it on where forward is run there."""
    forward = kept = room = 0
    if before is not None:
        befores = list(accumulate((row.kept for row in before), initial=0))
        kept, room = befores.pop(), sum(row.room for row in before)
        if not stretch.is_single:
            befores = [0] * len(befores)
        forward = max(b + row.forward for b, row in zip(befores, before, strict=True))
        rows, tops = before, []
    if again is not None:
        befores = list(accumulate((row.kept for row in again), initial=0))
        tops = [b + row.forward for b, row in zip(befores, again, strict=False)]
        if turn is not None:
            tops.append(befores[-1] + turn.forward)
        rows = again
    tops += [b + row.backward for b, row in zip(befores, rows, strict=False)]
    gradients = sum(row.gradients for row in rows) + (turn.gradients if turn else 0)
    return Ways(forward, max(tops), kept, room, gradients)
