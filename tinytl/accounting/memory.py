"""Peak training bytes, predicted: everything counted, in plain Python.

The parts of the network are priced one by one (tinytl.accounting.step.costs); a plan's step is
then gone through part by part, forward and back, as tinytl.engine.step does, and the worst moment
is the peak. Counted: frozen weights in the bits they are stored in, trained values, Adam's
moments, gradients, the uint8 batch, activations kept and passing, temporaries, and what torch's
operators allocate inside (workspace). Left out: the interpreter, library code, and what does not
come from torch's allocator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinytl.accounting.layers.ledger import FLOAT_BYTES
from tinytl.accounting.step.costs import HeadCost, Row, SettingCosts, Sweep, costs_by_size
from tinytl.accounting.step.runs import Moment, Run
from tinytl.accounting.step.schedule import Step, StretchWays
from tinytl.accounting.step.stretches import Parts, cut
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import Plan

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


class _Worst(Step[Run]):
    """A step's worst moment."""

    def __init__(self, stretches: Sequence[StretchWays[Run]], boundaries: Sequence[int]) -> None:
        self._total = 0
        self._moment: Callable[[], Moment] = Moment
        super().__init__(stretches, boundaries)

    @property
    def moment(self) -> Moment:
        return self._moment()

    def note(
        self, run: Run, sweep: Sweep, boundaries: int, kept: int = 0, gradients: int = 0
    ) -> None:
        boundaries += self.held
        kept += self.kept
        total = run.peak(sweep) + boundaries + kept + gradients
        if total > self._total:
            self._total = total
            self._moment = lambda: run.moment(sweep).beside(boundaries, kept, gradients)

    def note_map(self, map_bytes: int, boundaries: int, kept: int = 0, gradients: int = 0) -> None:
        boundaries += self.held
        kept += self.kept
        total = map_bytes + boundaries + kept + gradients
        if total > self._total:
            self._total = total
            self._moment = lambda: Moment(map_bytes).beside(boundaries, kept, gradients)


class _NetworkParts(Parts[Row, Run]):
    """Of one network."""

    __slots__ = ()

    def rows(self, costs: SettingCosts, start: int, stop: int) -> list[Row]:
        found = [self.stem(costs)] if start == 0 else []
        blocks = slice(max(start - 1, 0), stop - 1)
        size = 0
        for block, in_size in zip(self.blocks[blocks], self.sizes[blocks], strict=True):
            if in_size != size:
                size, of_size = in_size, costs.blocks(in_size)
                known = of_size.by_identity
            found.append(known.get(id(block)) or of_size.add(block))
        if stop == len(self.stages):
            found.append(self.tail(costs))
        return found

    def way(self, rows: list[Row], learns_from: int, head: HeadCost | None) -> Run:
        return Run(rows, learns_from, head)


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
        network.norm,
        network.padding,
        method,
        frozen_bits,
        plan.optimizer_bits,
        plan.trained_bits,
    )
    stretches, boundaries = cut(_NetworkParts(network, resolution), plan, costs)
    worst = _Worst(stretches, boundaries).moment
    head = stretches[-1].full.head
    assert head is not None
    frozen, trained, state = head.parameters
    for stretch in stretches:
        more_frozen, more_trained, more_state = map(sum, stretch.full.stored)
        frozen, trained, state = frozen + more_frozen, trained + more_trained, state + more_state
    breakdown = {
        "frozen_weights": frozen,
        "trained_values": trained,
        "optimizer_state": state,
        "batch": batch_bytes(plan, resolution),
        "small_tensors": small_tensors_bytes(network, plan),
    }
    worst = max(worst, decoding(resolution, image_size or resolution))
    breakdown |= {
        "gradients": worst.gradients,
        "kept_activations": worst.kept + worst.boundaries,
        "passing_activations": worst.total
        - (worst.workspace + worst.gradients + worst.kept + worst.boundaries),
        "workspace": worst.workspace,
    }
    return PeakMemory(total_bytes=sum(breakdown.values()), breakdown=breakdown)


def batch_bytes(plan: Plan, resolution: int) -> int:
    """Of the uint8 images of a step."""
    return plan.batch_size * 3 * resolution**2


def small_tensors_bytes(network: NetworkConfig, plan: Plan) -> int:
    """An allowance, and the masks of dropout."""
    features = network.feature_mix.out_channels if network.dropout_rate else 0
    return _SMALL_TENSORS_BYTES + plan.batch_size * features * FLOAT_BYTES


def decoding(resolution: int, image_size: int) -> Moment:
    """While one image of the batch is read and resized, in tinytl.training.data.

    torch's resizing unpacks the pixels to 4 channels before each of its two passes and after them,
    and makes a table of weights for every pixel of a side.
    """
    support = 2 * max(1, math.ceil(image_size / resolution)) + 1
    unpacked = 4 * (image_size**2 + image_size * resolution + resolution**2)
    workspace = unpacked + resolution * (16 * support + 64)
    return Moment(3 * image_size**2 + 3 * resolution**2 + workspace, workspace)
