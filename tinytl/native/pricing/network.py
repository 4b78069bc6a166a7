"""A network's parts in a line, priced for a setting, and what its program takes besides them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from tinytl.accounting.step.stretches import geometry
from tinytl.description.config import NetworkConfig, NormConfig, Padding, conv_size
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.errors import ConfigError
from tinytl.native.arena import aligned
from tinytl.native.formats.records import BUFFER, HEADER, OP, SECTIONS, SEGMENT
from tinytl.native.methods import refusal
from tinytl.native.pricing.places import Places, Stretch
from tinytl.native.pricing.rows import AnyCost, HeadCost, PartCosts, Row
from tinytl.native.pricing.step import Amount

_CLASS_NAME_BYTES = 32
"""Of the name of a class, with its length: a stated allowance."""
_OTHER_RECORDS = 4 * OP.size + 16 * BUFFER.size
"""Of ports, and of the classifier in evaluation."""


class Line:
    """The stem, the blocks, the tail; and the head. stages: of each part but the head; sizes: the
    sides of the blocks' inputs."""

    def __init__(self, network: NetworkConfig, resolution: int, image_size: int | None) -> None:
        """image_size: of the stored images; None: the resolution."""
        self.network, self._resolution = network, resolution
        self._image_size = image_size or resolution
        conv = network.first_conv
        self.blocks = network.active_blocks
        self.sizes, self.stages, self._last_size = geometry(
            conv_size(resolution, conv.kernel_size, conv.stride),
            tuple([block.stride for block in self.blocks]),
        )

    def parts(self, costs: PartCosts) -> list[AnyCost]:
        beginning = costs.beginning(
            self.network.first_conv, self.blocks[0], self._resolution, self._image_size
        )
        blocks = map(costs.block, self.blocks[1:], self.sizes[1:])
        return [*beginning, *blocks, self._tail(costs)]

    def _tail(self, costs: PartCosts) -> AnyCost:
        network = self.network
        return costs.tail(network.final_expand, network.feature_mix, self._last_size)

    def head(self, costs: PartCosts) -> HeadCost:
        network = self.network
        features = network.feature_mix.out_channels
        return costs.head(features, network.num_classes, network.dropout_rate)

    def costs(self, method: Method, batch_size: int) -> PartCosts:
        """Raises ConfigError for a method that the trainer refuses."""
        refused = refusal(method)
        if refused is not None:
            raise ConfigError(refused)
        return _costs(self.network.norm, self.network.padding, method, batch_size)


class Program(NamedTuple):
    """What a plan's program takes besides its parts. ports_bytes: of labels and of dropout's
    choices; num_classes: with names of their own."""

    head: HeadCost
    turn: Row
    ports_bytes: int
    num_segments: int
    num_classes: int

    @staticmethod
    def of(line: Line, costs: PartCosts, plan: Plan, last: Stretch) -> Program:
        network, head = line.network, line.head(costs)
        features = network.feature_mix.out_channels
        choices = plan.batch_size * features // 8 if network.dropout_rate else 0
        return Program(
            head=head,
            turn=head.turn(last.micro_batch_size, last.learns, bool(choices)),
            ports_bytes=aligned(2 * plan.batch_size) + aligned(choices),
            num_segments=2 * len(plan.stretches) + 1,
            num_classes=network.num_classes,
        )

    def mapped_bytes(self, frozen_bytes: Amount, records: Amount) -> Amount:
        """Of the file. records: bytes of operations and buffers of all parts."""
        own = (
            HEADER.size
            + SEGMENT.size * self.num_segments
            + _CLASS_NAME_BYTES * self.num_classes
            + _OTHER_RECORDS
            + self.turn.records
            + self.head.stored.records
            + aligned(1) * len(SECTIONS)
        )
        return own + records + frozen_bytes + self.head.stored.frozen_bytes


def segments_of(stretch: Stretch, parts: Sequence[AnyCost]) -> tuple[Places | None, Places | None]:
    """Places of a stretch's parts in the segments that have a forward of their own: before the
    turn, and from it on."""
    before = None if stretch.is_last else Places(stretch, parts, passes=False)
    again = Places(stretch, parts, passes=True) if stretch.passes_again else None
    return before, again


@lru_cache(maxsize=64)
def _costs(norm: NormConfig, padding: Padding, method: Method, batch_size: int) -> PartCosts:
    return PartCosts(norm, padding, method, batch_size)
