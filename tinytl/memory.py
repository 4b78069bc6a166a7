"""Peak training bytes, predicted: everything counted, in plain Python.

The parts of the network are priced one by one (tinytl.parts), each once for a setting; a plan's
step is then gone through part by part, forward and back, as tinytl.step does, and the worst
moment is the peak. Counted: frozen weights in the bits they are stored in, trained values, Adam's
moments, gradients, the uint8 batch, activations kept and passing, temporaries, and what torch's
operators allocate inside (workspace). Left out: the interpreter, library code, and what does
not come from torch's allocator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tinytl.config import BlockConfig, ConvConfig, NetworkConfig, conv_size
from tinytl.ledger import FLOAT_BYTES, Ledger, Pass
from tinytl.operations import Parameters, Setting
from tinytl.parts import BlockPart, HeadPart, Part, StemPart, TailPart, Where
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


class _Cost:
    """A part's peaks for a setting, beside what it is given: (bytes, of these workspace)."""

    def __init__(self, part: Part, setting: Setting) -> None:
        parameters = Parameters(setting)
        part.count(parameters)
        self._part = part
        self._backward: dict[tuple[Pass, Where], tuple[int, int]] = {}
        self.parameters = parameters
        self.gradient_bytes = parameters.gradient_bytes
        self.x, self.y, self.kept = part.x, part.y, part.kept
        self.keeps_input = part.keeps_input
        self.forward = self._forward(taped=False)
        self.taped_forward = self._forward(taped=True)

    def _forward(self, *, taped: bool) -> tuple[int, int]:
        ledger = Ledger()
        self._part.forward(ledger, taped=taped)
        return ledger.peak_bytes, ledger.workspace_bytes

    def kept_at(self, position: int) -> int:
        """What the part adds to the tape: a stretch's first part finds its input kept already."""
        return 0 if position == 0 and self.keeps_input else self.kept

    def backward(self, kind: Pass, where: Where) -> tuple[int, int]:
        """With what the part kept, and the output's gradient unless it is shared."""
        found = self._backward.get((kind, where))
        if found is None:
            ledger = Ledger()
            ledger.hold(0 if where.input_is_shared and self.keeps_input else self.kept)
            ledger.hold(0 if where.grad_is_shared else self.y)
            self._part.backward(ledger, kind, where)
            found = ledger.peak_bytes, ledger.workspace_bytes
            self._backward[kind, where] = found
        return found


class _Run:
    """A micro-batch's way through a stretch: the costs of its parts.

    learns_from: the first part that backward reaches; needs_input: whether it hands a gradient
    on. head: in the last stretch. Moments are beside what else there is at the time.
    """

    def __init__(
        self, costs: Sequence[_Cost], learns_from: int, needs_input: bool, head: _HeadCost | None
    ) -> None:
        self.costs = costs
        self.head = head
        self.x, self.y = costs[0].x, costs[-1].y
        self.kept = sum(
            cost.kept_at(i) for i, cost in enumerate(costs) if i >= learns_from
        )
        self.gradients = sum(cost.gradient_bytes for cost in costs[learns_from:])
        if head is not None:
            self.gradients += head.gradient_bytes
        self.learns_from = learns_from
        self._wheres = [
            Where(
                needs_input=needs_input or i > learns_from,
                grad_is_shared=i == len(costs) - 1,
                input_is_shared=i == 0,
            )
            for i in range(len(costs))
        ]

    def forward(self, *, taped: bool) -> Moment:
        """The worst moment; at the end the output and what was kept are there."""
        x = kept = worst = 0
        moment = Moment()
        learns_from = self.learns_from if taped else len(self.costs)
        for i, cost in enumerate(self.costs):
            taped = i >= learns_from
            peak, workspace = cost.taped_forward if taped else cost.forward
            total = kept + x + peak
            if total > worst:
                worst, moment = total, Moment(total, workspace, 0, kept)
            if taped:
                kept += cost.kept_at(i)
            x = cost.y
        return moment

    def backward(self, kind: Pass) -> Moment:
        """The worst moment; at the start there is what was kept, and the gradients so far."""
        kept = self.kept
        gradients = 0 if kind in ("only", "first") else self.gradients
        worst = 0
        moment = Moment()
        passing = 0
        if self.head is not None:
            features = self.y
            peak, workspace = self.head.turn(kind)
            worst = kept + gradients + peak
            moment = Moment(worst, workspace, gradients, kept)
            gradients += _change(kind, self.head.gradient_bytes)
            passing = 2 * features  # the features and their gradient, to the end
        for i in range(len(self.costs) - 1, self.learns_from - 1, -1):
            cost = self.costs[i]
            peak, workspace = cost.backward(kind, self._wheres[i])
            kept -= cost.kept_at(i)
            total = kept + gradients + passing + peak
            if total > worst:
                worst, moment = total, Moment(total, workspace, gradients, kept)
            gradients += _change(kind, cost.gradient_bytes)
        return moment


def _change(kind: Pass, gradient_bytes: int) -> int:
    """What a part's backward adds to the gradients that wait."""
    if kind == "first":
        return gradient_bytes
    return -gradient_bytes if kind == "last" else 0


class _HeadCost:
    def __init__(self, head: HeadPart, setting: Setting) -> None:
        self.parameters = Parameters(setting)
        head.count(self.parameters)
        self.gradient_bytes = self.parameters.gradient_bytes
        self._head = head

    @lru_cache  # noqa: B019
    def turn(self, kind: Pass) -> tuple[int, int]:
        ledger = Ledger()
        ledger.hold(self._head.features)
        self._head.turn(ledger, kind)
        return ledger.peak_bytes, ledger.workspace_bytes


class _StretchRuns(NamedTuple):
    """A stretch's micro-batches: so many full ones, and a smaller last one where there is a rest."""

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


@lru_cache(maxsize=1 << 16)
def _part_cost(config: ConvConfig | BlockConfig, setting: Setting, in_size: int) -> _Cost:
    if isinstance(config, BlockConfig):
        return _Cost(BlockPart(config, setting, in_size), setting)
    return _Cost(StemPart(config, setting, in_size), setting)


@lru_cache(maxsize=1 << 12)
def _tail_cost(
    before_pool: ConvConfig, after_pool: ConvConfig | None, setting: Setting, in_size: int
) -> _Cost:
    return _Cost(TailPart(before_pool, after_pool, setting, in_size), setting)


@lru_cache(maxsize=1 << 12)
def _head_cost(num_features: int, num_classes: int, setting: Setting, dropout: bool) -> _HeadCost:
    head = HeadPart(num_features, num_classes, setting, has_dropout=dropout)
    return _HeadCost(head, setting)


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
    costs: dict[int, tuple[list[_Cost], _HeadCost]] = {}
    for num_images in _micro_batch_sizes(plan):
        setting = Setting(
            norm=network.norm,
            method=method,
            num_images=num_images,
            frozen_bits=frozen_bits,
            optimizer_bits=plan.optimizer_bits,
            trained_bits=plan.trained_bits,
        )
        costs[num_images] = _costs(network, resolution, setting)
    parts, head = costs[plan.stretches[-1].micro_batch_size]
    stretches, boundaries = _stretches(network, plan, costs)
    worst = _Step(stretches, boundaries).worst
    everything = [*parts, head]
    features = network.feature_mix.out_channels
    breakdown = {
        "frozen_weights": sum(part.parameters.frozen_bytes for part in everything),
        "trained_values": sum(part.parameters.trained_bytes for part in everything),
        "optimizer_state": sum(part.parameters.state_bytes for part in everything),
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


def _micro_batch_sizes(plan: Plan) -> set[int]:
    sizes = {stretch.micro_batch_size for stretch in plan.stretches}
    return sizes | {rest for size in sizes if (rest := plan.batch_size % size)}


def _decoding_bytes(resolution: int, image_size: int) -> int:
    """While one image of the batch is read, cropped and resized, in tinytl.data."""
    stored, view, between = 3 * image_size**2, 3 * resolution**2, 3 * image_size * resolution
    return math.ceil(2.25 * stored) + 4 * between + 3 * view


def _costs(
    network: NetworkConfig, resolution: int, setting: Setting
) -> tuple[list[_Cost], _HeadCost]:
    conv = network.first_conv
    costs = [_part_cost(conv, setting, resolution)]
    size = conv_size(resolution, conv.kernel_size, conv.stride)
    for block in network.active_blocks:
        costs.append(_part_cost(block, setting, size))
        size = conv_size(size, block.kernel_size, block.stride)
    mix, expand = network.feature_mix, network.final_expand
    if expand is None:
        costs.append(_tail_cost(mix, None, setting, size))
    else:
        costs.append(_tail_cost(expand, mix, setting, size))
    dropout = bool(network.dropout_rate)
    return costs, _head_cost(mix.out_channels, network.num_classes, setting, dropout)


def _stretches(
    network: NetworkConfig, plan: Plan, costs: dict[int, tuple[list[_Cost], _HeadCost]]
) -> tuple[list[_StretchRuns], list[int]]:
    """The plan's stretches, and the whole batch's bytes at the start of each."""
    starts = plan.part_starts(network.part_stages)
    parts = next(iter(costs.values()))[0]
    first = next((i for i, part in enumerate(parts) if part.gradient_bytes), len(parts))
    stretches, boundaries = [], []
    for number, stretch in enumerate(plan.stretches):
        start, stop = starts[number : number + 2]
        learns_from = min(max(first - start, 0), stop - start)
        is_last = number + 1 == len(plan.stretches)

        def run(num_images: int) -> _Run:
            some, head = costs[num_images]
            return _Run(
                some[start:stop], learns_from, first < start, head if is_last else None
            )

        size = stretch.micro_batch_size
        rest = plan.batch_size % size
        full = run(size)
        stretches.append(
            _StretchRuns(
                full=full,
                num_full=plan.batch_size // size,
                rest=run(rest) if rest else None,
                recomputes=stretch.recomputes,
                learns=learns_from < stop - start,
                needs_input=first < start,
            )
        )
        boundaries.append(full.x // size * plan.batch_size)
    return stretches, boundaries
