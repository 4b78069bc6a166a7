"""How a plan cuts a network into stretches, and what each is to backward. No torch here.

Written once for one network and for many at once (tinytl.accounting.bulk_memory): what the rows
of the parts are, and a micro-batch's way through them, is the caller's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar

from tinytl.accounting.step.costs import HeadCost, Row, SettingCosts
from tinytl.accounting.step.schedule import Amount, EndsT, StretchWays
from tinytl.description.config import BlockConfig, NetworkConfig, conv_size
from tinytl.description.plan import Plan

Costs = Callable[[int], SettingCosts]
"""What parts cost in a plan's precisions, by the size of a micro-batch."""


class _Cost(Protocol):
    @property
    def keeps_input(self) -> bool: ...

    def row(self, needs_input: bool, grad_is_shared: bool, input_is_shared: bool, /) -> Any: ...


class AnyRow(Protocol):
    """What a part takes: tinytl.accounting.step.costs.Row, or many of them."""

    @property
    def gradients(self) -> Amount: ...

    @property
    def cost(self) -> _Cost: ...


RowT = TypeVar("RowT", bound=AnyRow)


class Parts(ABC, Generic[RowT, EndsT]):
    """The parts that a map passes: the stem, the blocks, the tail; and the head.

    stages: of each part but the head; as NetworkConfig.part_stages. blocks, sizes: the blocks and
    the sides of their inputs; last_size: side of the tail's.
    """

    __slots__ = ("blocks", "last_size", "network", "resolution", "sizes", "stages")

    def __init__(self, network: NetworkConfig, resolution: int) -> None:
        self.network = network
        self.resolution = resolution
        conv = network.first_conv
        self.blocks: list[BlockConfig] = [block for block in network.blocks if block is not None]
        self.sizes, self.stages, self.last_size = geometry(
            conv_size(resolution, conv.kernel_size, conv.stride),
            tuple([block.stride for block in self.blocks]),
        )

    @abstractmethod
    def rows(self, costs: SettingCosts, start: int, stop: int) -> list[RowT]:
        """Of the parts from start to before stop, as they are inside a stretch."""

    @abstractmethod
    def way(self, rows: list[RowT], learns_from: int, head: HeadCost | None) -> EndsT:
        """A micro-batch's way through the parts of rows."""

    def stem(self, costs: SettingCosts) -> Row:
        return costs.stem(self.network.first_conv, self.resolution)

    def tail(self, costs: SettingCosts) -> Row:
        mix, expand = self.network.feature_mix, self.network.final_expand
        convs = (mix, None) if expand is None else (expand, mix)
        return costs.tail(*convs, self.last_size)

    def head(self, costs: SettingCosts) -> HeadCost:
        network = self.network
        features = network.feature_mix.out_channels
        return costs.head(features, network.num_classes, bool(network.dropout_rate))


@lru_cache(maxsize=1 << 12)
def geometry(size: int, strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
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


def cut(
    parts: Parts[RowT, EndsT], plan: Plan, costs: Costs
) -> tuple[list[StretchWays[EndsT]], list[int]]:
    """The plan's stretches, and the whole batch's bytes at the start of each.

    Raises ConfigError for a plan with a stretch beyond the network's stages.
    """
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
        full = _way(parts, rows, costs(size), learns_from, needs_input, stop)
        rest = None
        if rest_size:
            its = costs(rest_size)
            rest = _way(parts, parts.rows(its, start, stop), its, learns_from, needs_input, stop)
        stretches.append(
            StretchWays(
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


def _way(
    parts: Parts[RowT, EndsT],
    rows: list[RowT],
    costs: SettingCosts,
    learns_from: int,
    needs_input: bool,
    stop: int,
) -> EndsT:
    """Of rows for the inside of a stretch; needs_input: whether it hands a gradient on."""
    last = len(rows) - 1
    for i in {0, min(learns_from, last), last}:
        rows[i] = rows[i].cost.row(needs_input or i > learns_from, i == last, i == 0)
    return parts.way(rows, learns_from, parts.head(costs) if stop == len(parts.stages) else None)
