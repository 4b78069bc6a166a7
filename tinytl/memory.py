"""Peak training bytes, predicted: everything counted, in plain Python.

The parts of the network are priced one by one (tinytl.costs); a plan's step is then gone through
part by part, forward and back, as tinytl.step does, and the worst moment is the peak.
Counted: frozen weights in the bits they are stored in, trained values, Adam's moments, gradients,
the uint8 batch, activations kept and passing, temporaries, and what torch's operators allocate
inside (workspace). Left out: the interpreter, library code, and what does not come from torch's
allocator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from tinytl.config import NetworkConfig, conv_size
from tinytl.costs import HeadCost, Row, SettingCosts, Sweep, costs_by_size
from tinytl.ledger import FLOAT_BYTES, Pass
from tinytl.plan import Plan
from tinytl.runs import Moment, Run
from tinytl.trainable import Method

_SMALL_TENSORS_BYTES = 1 << 14
"""Losses, labels, normalization constants and the like: a stated allowance."""


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Predicted peak in bytes, and what it consists of at the peak moment (sums to the total)."""

    total_bytes: int
    breakdown: dict[str, int]

    @property
    def workspace_bytes(self) -> int:
        """What operators take inside at the peak moment: no tensor that Python could see."""
        return self.breakdown["workspace"]


class _StretchRuns(NamedTuple):
    """A stretch's micro-batches: so many full ones, and a smaller last one if there is a rest."""

    full: Run
    num_full: int
    rest: Run | None
    recomputes: bool
    learns: bool
    keeps_input: bool
    needs_input: bool

    @property
    def is_single(self) -> bool:
        return self.num_full == 1 and self.rest is None

    def passes(self, *, tapes_wait: bool = False) -> Iterator[tuple[Pass, Run, int]]:
        """The passes that can be the worst, each with the number of those before it.

        The first takes no more than the second, unless more tapes wait while it runs.
        """
        if self.is_single:
            yield "only", self.full, 0
            return
        num_passes = self.num_full + (self.rest is not None)
        if tapes_wait or num_passes == 2:
            yield "first", self.full, 0
        if num_passes > 2:
            yield "middle", self.full, 1
        yield "last", self.rest or self.full, num_passes - 1

    @property
    def all_kept(self) -> int:
        return self.num_full * self.full.kept + (0 if self.rest is None else self.rest.kept)


class _Step:
    """A whole step, stretch by stretch, as tinytl.step goes through it; its worst moment.

    Maps of the whole batch between stretches are boundaries.
    """

    def __init__(self, stretches: Sequence[_StretchRuns], boundaries: Sequence[int]) -> None:
        """boundaries: bytes of each stretch's input, for the whole batch; images count apart."""
        self._worst_total = 0
        self._worst: Callable[[], Moment] = Moment
        self._held = 0
        self._kept = 0
        waiting = []
        *early, last = stretches
        for number, stretch in enumerate(early):
            x, y = boundaries[number : number + 2]
            kept = self._forward(stretch, x, y)
            held = x if stretch.learns and (stretch.recomputes or stretch.keeps_input) else 0
            self._held += held
            self._kept += kept
            waiting.append((stretch, x, y, held, kept))
        self._turn(last, boundaries[-1])
        for stretch, x, y, held, kept in reversed(waiting):
            if stretch.learns:
                self._held -= held
                self._kept -= kept
                self._backward(stretch, x, held + y, kept)

    @property
    def worst(self) -> Moment:
        return self._worst()

    def _note(
        self, run: Run, sweep: Sweep, boundaries: int, kept: int = 0, gradients: int = 0
    ) -> None:
        boundaries += self._held
        kept += self._kept
        total = run.peak(sweep) + boundaries + kept + gradients
        if total > self._worst_total:
            self._worst_total = total
            self._worst = lambda: run.moment(sweep).beside(boundaries, kept, gradients)

    def _note_map(
        self, map_bytes: int, boundaries: int, kept: int = 0, gradients: int = 0
    ) -> None:
        """Between parts, with one micro-batch's map alone passing."""
        boundaries += self._held
        kept += self._kept
        total = map_bytes + boundaries + kept + gradients
        if total > self._worst_total:
            self._worst_total = total
            self._worst = lambda: Moment(map_bytes).beside(boundaries, kept, gradients)

    def _forward(self, stretch: _StretchRuns, x: int, y: int) -> int:
        """Returns what is kept for backward."""
        full, rest, num_full = stretch.full, stretch.rest, stretch.num_full
        taped = stretch.learns and not stretch.recomputes
        sweep: Sweep = "taped" if taped else "forward"
        kept = full.kept if taped else 0
        if stretch.is_single:
            self._note(full, sweep, x)
            return kept
        before = num_full - 1
        self._note(full, sweep, x + (y if before else 0), before * kept)
        self._note_map(full.y, x + y, num_full * kept)
        if rest is not None:
            self._note(rest, sweep, x + y, num_full * kept)
        return stretch.all_kept if taped else 0

    def _turn(self, stretch: _StretchRuns, x: int) -> None:
        sweep: Sweep = "taped" if stretch.learns else "forward"
        for kind, run, before in stretch.passes():
            self._note(run, sweep, x, gradients=run.gradients if before else 0)
            self._note(run, kind, x)

    def _backward(self, stretch: _StretchRuns, x: int, boundaries: int, kept: int) -> None:
        """boundaries: the output's gradient, and the input where it was held."""
        fresh = x if stretch.needs_input and not stretch.recomputes else 0
        for kind, run, before in stretch.passes(tapes_wait=not stretch.recomputes):
            around = boundaries + (fresh if before else 0)
            gradients = run.gradients if before else 0
            rest = 0
            if stretch.recomputes:
                self._note(run, "taped", around, gradients=gradients)
            else:
                rest = kept - before * stretch.full.kept - run.kept
            self._note(run, kind, around, rest)
            if stretch.needs_input and not stretch.is_single:
                self._note_map(run.x, boundaries + fresh, rest, run.gradients)


def peak_memory(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    image_size: int | None = None,
    frozen_bits: int = 8,
) -> PeakMemory:
    """Predict the peak training bytes of a network, never below what a tracker measures.

    resolution: side of the square input in pixels; image_size: of the stored images, which are
    resized to it (None: the same). frozen_bits: what a frozen weight is stored in, 8 or 32.
    Lite residuals count where the network has them, trained or not. Raises ConfigError for a plan
    with a stretch beyond the network's stages.
    """
    costs = costs_by_size(
        network.norm, method, frozen_bits, plan.optimizer_bits, plan.trained_bits
    )
    stretches, boundaries = _stretches(network, plan, resolution, costs)
    worst = _Step(stretches, boundaries).worst
    head = stretches[-1].full.head
    assert head is not None
    frozen, trained, state = head.parameters
    for stretch in stretches:
        more_frozen, more_trained, more_state = map(sum, stretch.full.stored)
        frozen, trained, state = frozen + more_frozen, trained + more_trained, state + more_state
    features = network.feature_mix.out_channels
    breakdown = {
        "frozen_weights": frozen,
        "trained_values": trained,
        "optimizer_state": state,
        "batch": plan.batch_size * 3 * resolution**2,
        "small_tensors": _SMALL_TENSORS_BYTES
        + (plan.batch_size * features * FLOAT_BYTES if network.dropout_rate else 0),
    }
    decoding = _decoding(resolution, image_size or resolution)
    worst = max(worst, decoding)
    breakdown |= {
        "gradients": worst.gradients,
        "kept_activations": worst.kept + worst.boundaries,
        "passing_activations": worst.total
        - (worst.workspace + worst.gradients + worst.kept + worst.boundaries),
        "workspace": worst.workspace,
    }
    return PeakMemory(total_bytes=sum(breakdown.values()), breakdown=breakdown)


def _decoding(resolution: int, image_size: int) -> Moment:
    """While one image of the batch is read and resized, in tinytl.data.

    torch's resizing unpacks the pixels to 4 channels before each of its two passes and after them,
    and makes a table of weights for every pixel of a side.
    """
    support = 2 * max(1, math.ceil(image_size / resolution)) + 1
    unpacked = 4 * (image_size**2 + image_size * resolution + resolution**2)
    workspace = unpacked + resolution * (16 * support + 64)
    return Moment(3 * image_size**2 + 3 * resolution**2 + workspace, workspace)


def _stretches(
    network: NetworkConfig, plan: Plan, resolution: int, costs: Callable[[int], SettingCosts]
) -> tuple[list[_StretchRuns], list[int]]:
    """The plan's stretches, and the whole batch's bytes at the start of each.

    costs: by the size of a micro-batch.
    """
    parts = _Parts(network, resolution)
    starts = plan.part_starts(parts.stages)
    bounds = list(zip(plan.stretches, starts, starts[1:], strict=False))
    full_rows = [
        parts.rows(costs(stretch.micro_batch_size), start, stop) for stretch, start, stop in bounds
    ]
    first = 0  # part that learns
    for row in chain.from_iterable(full_rows):
        if row.gradients:
            break
        first += 1
    stretches, boundaries = [], []
    for rows, (stretch, start, stop) in zip(full_rows, bounds, strict=True):
        learns_from = min(max(first - start, 0), stop - start)
        needs_input = first < start
        size = stretch.micro_batch_size
        rest_size = plan.batch_size % size
        full = _run(parts, rows, costs(size), learns_from, needs_input, stop)
        rest = None
        if rest_size:
            its = costs(rest_size)
            rest = _run(parts, parts.rows(its, start, stop), its, learns_from, needs_input, stop)
        stretches.append(
            _StretchRuns(
                full=full,
                num_full=plan.batch_size // size,
                rest=rest,
                recomputes=stretch.recomputes,
                learns=learns_from < stop - start,
                keeps_input=learns_from == 0 and rows[0].cost.keeps_input,
                needs_input=needs_input,
            )
        )
        boundaries.append(full.x // size * plan.batch_size)
    return stretches, boundaries


def _run(
    parts: _Parts,
    rows: list[Row],
    costs: SettingCosts,
    learns_from: int,
    needs_input: bool,
    stop: int,
) -> Run:
    """Of rows for the inside of a stretch; needs_input: whether it hands a gradient on."""
    last = len(rows) - 1
    for i in {0, min(learns_from, last), last}:
        rows[i] = rows[i].cost.row(needs_input or i > learns_from, i == last, i == 0)
    return Run(rows, learns_from, parts.head(costs) if stop == len(parts.stages) else None)


class _Parts:
    """The parts that a map passes: the stem, the blocks, the tail; and the head.

    stages: of each part but the head; as NetworkConfig.part_stages.
    """

    __slots__ = ("_blocks", "_last_size", "_network", "_resolution", "_sizes", "stages")

    def __init__(self, network: NetworkConfig, resolution: int) -> None:
        self._network = network
        self._resolution = resolution
        conv = network.first_conv
        self._blocks = [block for block in network.blocks if block is not None]
        self._sizes, self.stages, self._last_size = _geometry(
            conv_size(resolution, conv.kernel_size, conv.stride),
            tuple([block.stride for block in self._blocks]),
        )

    def rows(self, costs: SettingCosts, start: int, stop: int) -> list[Row]:
        """Of the parts from start to before stop."""
        network = self._network
        found = [costs.stem(network.first_conv, self._resolution)] if start == 0 else []
        blocks = slice(max(start - 1, 0), stop - 1)
        size = 0
        for block, in_size in zip(self._blocks[blocks], self._sizes[blocks], strict=True):
            if in_size != size:
                size, of_size = in_size, costs.blocks(in_size)
                known = of_size.by_identity
            found.append(known.get(id(block)) or of_size.add(block))
        if stop == len(self.stages):
            mix, expand = network.feature_mix, network.final_expand
            convs = (mix, None) if expand is None else (expand, mix)
            found.append(costs.tail(*convs, self._last_size))
        return found

    def head(self, costs: SettingCosts) -> HeadCost:
        network = self._network
        features = network.feature_mix.out_channels
        return costs.head(features, network.num_classes, bool(network.dropout_rate))


@lru_cache(maxsize=1 << 12)
def _geometry(size: int, strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Sides of the blocks' inputs, stages of all parts but the head, side of the tail's input.

    size: of the first block's input. Kernels are odd and padded, so their sizes don't matter.
    """
    stage = 0
    sizes, stages = [], [stage]
    for stride in strides:
        sizes.append(size)
        stages.append(stage)
        if stride != 1:
            size = conv_size(size, 1, stride)
            stage += 1
    return tuple(sizes), (*stages, stage), size
