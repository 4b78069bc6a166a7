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
from itertools import chain
from typing import NamedTuple

from tinytl.config import NetworkConfig, conv_size
from tinytl.costs import HeadCost, PartCost, SettingCosts, costs_by_size
from tinytl.ledger import FLOAT_BYTES, Pass
from tinytl.parts import Where
from tinytl.plan import Plan
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


class Moment(NamedTuple):
    """Bytes at one moment of a step, beside what stands through all of it."""

    total: int = 0
    workspace: int = 0
    gradients: int = 0
    kept: int = 0
    boundaries: int = 0


class _Run:
    """A micro-batch's way through a stretch: the costs of its parts.

    learns_from: the first part that backward reaches; needs_input: whether it hands a gradient
    on. head: in the last stretch. Moments are beside what else there is at the time.
    """

    __slots__ = (
        "_backward_parts",
        "_kepts",
        "_last_taped",
        "costs",
        "gradients",
        "head",
        "kept",
        "learns_from",
        "x",
        "y",
    )

    def __init__(
        self,
        costs: Sequence[PartCost],
        learns_from: int,
        needs_input: bool,
        head: HeadCost | None,
    ) -> None:
        self.costs = costs
        self.head = head
        self.learns_from = learns_from
        self.x, self.y = costs[0].x, costs[-1].y
        self._kepts = [cost.kept for cost in costs]
        if costs[0].keeps_input:  # it is kept already, as the stretch's input
            self._kepts[0] = 0
        self.kept = sum(self._kepts[learns_from:])
        gradients = [cost.gradient_bytes for cost in costs]
        self.gradients = sum(gradients[learns_from:])
        if head is not None:
            self.gradients += head.gradient_bytes
        turns = [cost.inside for cost in costs]
        last = len(costs) - 1
        for i in {learns_from, last} if learns_from <= last else ():
            where = Where(
                needs_input=needs_input or i > learns_from,
                grad_is_shared=i == last,
                input_is_shared=i == 0,
            )
            turns[i] = costs[i].backward(where)
        parts = list(zip(turns, self._kepts, gradients, strict=True))
        self._backward_parts = parts[learns_from:][::-1]

    @property
    def all_costs(self) -> list[PartCost | HeadCost]:
        return [*self.costs] if self.head is None else [*self.costs, self.head]

    def forward(self, *, taped: bool) -> Moment:
        """The worst moment; at the end the output and what was kept are there."""
        learns_from = self.learns_from if taped else len(self.costs)
        x = worst = workspace = kept = worst_kept = 0
        for cost in self.costs[:learns_from]:
            peak, inside = cost.forward
            if x + peak > worst:
                worst, workspace = x + peak, inside
            x = cost.y
        for cost, its_kept in zip(
            self.costs[learns_from:], self._kepts[learns_from:], strict=True
        ):
            peak, inside = cost.taped
            total = kept + x + peak
            if total > worst:
                worst, workspace, worst_kept = total, inside, kept
            kept += its_kept
            x = cost.y
        return Moment(worst, workspace, 0, worst_kept)

    def backward(self, kind: Pass) -> Moment:
        """The worst moment; at the start there is what was kept, and the gradients so far."""
        kept = worst_kept = self.kept
        gradients = worst_gradients = 0 if kind in ("only", "first") else self.gradients
        worst = workspace = passing = 0
        adds = _ADDS[kind]
        if self.head is not None:
            peak, workspace = self.head.turn[kind]
            worst = kept + gradients + peak
            gradients += adds * self.head.gradient_bytes
            passing = 2 * self.y  # the features and their gradient, to the end
        for turn, its_kept, its_gradients in self._backward_parts:
            peak, inside = turn[kind]
            kept -= its_kept
            total = kept + gradients + passing + peak
            if total > worst:
                worst, workspace = total, inside
                worst_gradients, worst_kept = gradients, kept
            gradients += adds * its_gradients
        return Moment(worst, workspace, worst_gradients, worst_kept)


_ADDS: dict[Pass, int] = {"only": 0, "first": 1, "middle": 0, "last": -1}
"""What becomes of the gradients that wait, when a part's is there."""


class _StretchRuns(NamedTuple):
    """A stretch's micro-batches: so many full ones, and a smaller last one if there is a rest."""

    full: _Run
    num_full: int
    rest: _Run | None
    recomputes: bool
    learns: bool
    needs_input: bool

    @property
    def is_single(self) -> bool:
        return self.num_full == 1 and self.rest is None

    def passes(self) -> Iterator[tuple[Pass, _Run, int]]:
        """The passes that can be the worst, each with the number of those before it."""
        if self.is_single:
            yield "only", self.full, 0
            return
        num_passes = self.num_full + (self.rest is not None)
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
        self.worst = Moment()
        self._held = 0
        self._kept = 0
        waiting = []
        *early, last = stretches
        for number, stretch in enumerate(early):
            x, y = boundaries[number : number + 2]
            kept = self._forward(stretch, x, y)
            first = stretch.full.costs[0]
            keeps_x = stretch.recomputes or (stretch.full.learns_from == 0 and first.keeps_input)
            held = x if stretch.learns and keeps_x else 0
            self._held += held
            self._kept += kept
            waiting.append((stretch, x, y, held, kept))
        self._turn(last, boundaries[-1])
        for stretch, x, y, held, kept in reversed(waiting):
            if stretch.learns:
                self._held -= held
                self._kept -= kept
                self._backward(stretch, x, held + y, kept)

    def _note(self, moment: Moment, boundaries: int, kept: int = 0, gradients: int = 0) -> None:
        boundaries += self._held
        kept += self._kept
        total = moment.total + boundaries + kept + gradients
        if total > self.worst.total:
            self.worst = Moment(
                total,
                moment.workspace,
                moment.gradients + gradients,
                moment.kept + kept,
                boundaries,
            )

    def _forward(self, stretch: _StretchRuns, x: int, y: int) -> int:
        """Returns what is kept for backward."""
        full, rest, num_full = stretch.full, stretch.rest, stretch.num_full
        taped = stretch.learns and not stretch.recomputes
        moment = full.forward(taped=taped)
        if stretch.is_single:
            self._note(moment, x)
            return full.kept if taped else 0
        kept = full.kept if taped else 0
        before = num_full - 1
        self._note(moment, x + (y if before else 0), before * kept)
        self._note(Moment(full.y), x + y, num_full * kept)
        if rest is not None:
            self._note(rest.forward(taped=taped), x + y, num_full * kept)
        return stretch.all_kept if taped else 0

    def _turn(self, stretch: _StretchRuns, x: int) -> None:
        for kind, run, before in stretch.passes():
            gradients = run.gradients if before else 0
            self._note(run.forward(taped=stretch.learns), x, gradients=gradients)
            self._note(run.backward(kind), x)

    def _backward(self, stretch: _StretchRuns, x: int, boundaries: int, kept: int) -> None:
        """boundaries: the output's gradient, and the input where it was held."""
        fresh = x if stretch.needs_input and not stretch.recomputes else 0
        for kind, run, before in stretch.passes():
            around = boundaries + (fresh if before else 0)
            gradients = run.gradients if before else 0
            rest = 0
            if stretch.recomputes:
                self._note(run.forward(taped=True), around, gradients=gradients)
            else:
                rest = kept - before * stretch.full.kept - run.kept
            self._note(run.backward(kind), around, rest)
            if stretch.needs_input and not stretch.is_single:
                self._note(Moment(run.x), boundaries + fresh, rest, run.gradients)


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
    everything = [cost.parameters for stretch in stretches for cost in stretch.full.all_costs]
    frozen, trained, state = map(sum, zip(*everything, strict=True))
    features = network.feature_mix.out_channels
    breakdown = {
        "frozen_weights": frozen,
        "trained_values": trained,
        "optimizer_state": state,
        "batch": plan.batch_size * 3 * resolution**2,
        "small_tensors": _SMALL_TENSORS_BYTES
        + (plan.batch_size * features * FLOAT_BYTES if network.dropout_rate else 0),
    }
    decoding = Moment(_decoding_bytes(resolution, image_size or resolution))
    worst = max(worst, decoding)
    breakdown |= {
        "gradients": worst.gradients,
        "kept_activations": worst.kept + worst.boundaries,
        "passing_activations": worst.total
        - (worst.workspace + worst.gradients + worst.kept + worst.boundaries),
        "workspace": worst.workspace,
    }
    return PeakMemory(total_bytes=sum(breakdown.values()), breakdown=breakdown)


def _decoding_bytes(resolution: int, image_size: int) -> int:
    """While one image of the batch is read, cropped and resized, in tinytl.data."""
    stored, view, between = 3 * image_size**2, 3 * resolution**2, 3 * image_size * resolution
    return math.ceil(2.25 * stored) + 4 * between + 3 * view


def _stretches(
    network: NetworkConfig, plan: Plan, resolution: int, costs: Callable[[int], SettingCosts]
) -> tuple[list[_StretchRuns], list[int]]:
    """The plan's stretches, and the whole batch's bytes at the start of each.

    costs: by the size of a micro-batch.
    """
    parts = _Parts(network, resolution)
    starts = plan.part_starts(parts.stages)
    full_costs = [
        parts.costs(costs(stretch.micro_batch_size), start, stop)
        for stretch, start, stop in zip(plan.stretches, starts, starts[1:], strict=False)
    ]
    first = 0  # part that learns
    for cost in chain.from_iterable(full_costs):
        if cost.gradient_bytes:
            break
        first += 1
    stretches, boundaries = [], []
    for number, stretch in enumerate(plan.stretches):
        start, stop = starts[number : number + 2]
        learns_from = min(max(first - start, 0), stop - start)
        needs_input = first < start
        is_last = stop == len(parts.stages)
        size = stretch.micro_batch_size
        head = parts.head(costs(size)) if is_last else None
        full = _Run(full_costs[number], learns_from, needs_input, head)
        rest = None
        if rest_size := plan.batch_size % size:
            setting = costs(rest_size)
            head = parts.head(setting) if is_last else None
            rest = _Run(parts.costs(setting, start, stop), learns_from, needs_input, head)
        stretches.append(
            _StretchRuns(
                full=full,
                num_full=plan.batch_size // size,
                rest=rest,
                recomputes=stretch.recomputes,
                learns=learns_from < stop - start,
                needs_input=needs_input,
            )
        )
        boundaries.append(full.x // size * plan.batch_size)
    return stretches, boundaries


class _Parts:
    """The parts that a map passes: the stem, the blocks, the tail; and the head.

    stages: of each part but the head; as NetworkConfig.part_stages.
    """

    __slots__ = ("_blocks", "_last_size", "_network", "_resolution", "_sizes", "stages")

    def __init__(self, network: NetworkConfig, resolution: int) -> None:
        self._network = network
        self._resolution = resolution
        conv = network.first_conv
        size, stage = conv_size(resolution, conv.kernel_size, conv.stride), 0
        self._blocks = network.active_blocks
        sizes: list[int] = []  # of the blocks' inputs
        stages = [stage]
        for block in self._blocks:
            sizes.append(size)
            stages.append(stage)
            if block.stride != 1:
                size = conv_size(size, block.kernel_size, block.stride)
                stage += 1
        stages.append(stage)
        self.stages = stages
        self._sizes = sizes
        self._last_size = size

    def costs(self, costs: SettingCosts, start: int, stop: int) -> list[PartCost]:
        """Of the parts from start to before stop."""
        network = self._network
        found = [costs.stem(network.first_conv, self._resolution)] if start == 0 else []
        blocks = slice(max(start - 1, 0), stop - 1)
        size = 0
        for block, in_size in zip(self._blocks[blocks], self._sizes[blocks], strict=True):
            if in_size != size:
                size, its_costs = in_size, costs.blocks(in_size)
            found.append(its_costs[block])
        if stop == len(self.stages):
            mix, expand = network.feature_mix, network.final_expand
            convs = (mix, None) if expand is None else (expand, mix)
            found.append(costs.tail(*convs, self._last_size))
        return found

    def head(self, costs: SettingCosts) -> HeadCost:
        network = self._network
        features = network.feature_mix.out_channels
        return costs.head(features, network.num_classes, bool(network.dropout_rate))
