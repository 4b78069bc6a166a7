"""What each part of a network costs, once for every setting: tables that pricing looks up.

A search prices the same blocks again and again. So a part's events
(tinytl.accounting.layers.parts) are gone through once for a setting and a way backward, and the
peaks are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

from tinytl.accounting.layers.ledger import Ledger, Pass
from tinytl.accounting.layers.operations import Parameters, Setting
from tinytl.accounting.layers.parts import BlockPart, HeadPart, Part, Placement, StemPart, TailPart
from tinytl.description.config import BlockConfig, ConvConfig, NormConfig, Padding
from tinytl.description.method import Method
from tinytl.description.plan import OptimizerBits, TrainedBits

Sweep = Literal["forward", "taped", "only", "first", "middle", "last"]
"""A way through parts: forward, where backward will not follow and where it will, or backward."""

_PASSES: tuple[Pass, ...] = ("only", "first", "middle", "last")

_MAX_BLOCKS = 1 << 12
"""Blocks that a table holds before it starts anew."""


class Row(NamedTuple):
    """What a part takes at a place of its stretch: columns that a run adds up.

    kept, gradients: bytes that it adds to what waits. forward, taped: the peak of forward with the
    input, which is not counted where it is shared. only to last: of backward, by the pass, with
    what the part kept and the output's gradient, but for what is shared. workspaces: in each peak.
    frozen, trained, state: bytes of frozen weights, trained values, the optimizer's state.
    """

    kept: int
    gradients: int
    forward: int
    taped: int
    only: int
    first: int
    middle: int
    last: int
    workspaces: dict[Sweep, int]
    frozen: int
    trained: int
    state: int
    cost: PartCost


class PartCost:
    """A part's peaks in a setting. x, y, keeps_input: as in tinytl.accounting.layers.parts.Part.

    inside: the row for most places, neither the first part that learns nor an end of the stretch.
    """

    __slots__ = ("_part", "_rows", "_setting", "inside", "keeps_input", "x", "y")

    def __init__(self, part: Part, setting: Setting) -> None:
        self._part = part
        self._setting = setting
        self._rows: list[Row | None] = [None] * 8
        self.x, self.y, self.keeps_input = part.x, part.y, part.keeps_input
        self.inside = self.row()

    def row(
        self,
        needs_input: bool = True,
        grad_is_shared: bool = False,
        input_is_shared: bool = False,
    ) -> Row:
        """At the place of a stretch that Placement describes."""
        number = needs_input + 2 * grad_is_shared + 4 * input_is_shared
        found = self._rows[number]
        if found is None:
            where = Placement(needs_input, grad_is_shared, input_is_shared)
            found = self._rows[number] = self._make_row(where)
        return found

    def _make_row(self, where: Placement) -> Row:
        part = self._part
        parameters = Parameters(self._setting)
        part.count(parameters)
        kept = 0 if where.input_is_shared and part.keeps_input else part.kept
        peaks: dict[Sweep, int] = {}
        workspaces: dict[Sweep, int] = {}
        forwards: tuple[tuple[Sweep, bool], ...] = (("forward", False), ("taped", True))
        for sweep, taped in forwards:
            ledger = Ledger()
            ledger.allocate(0 if where.input_is_shared else part.x)
            part.forward(ledger, taped=taped)
            peaks[sweep], workspaces[sweep] = ledger.peak_bytes, ledger.workspace_bytes
        for kind in _PASSES:
            ledger = Ledger()
            ledger.allocate(kept + (0 if where.grad_is_shared else part.y))
            part.backward(ledger, kind, where)
            peaks[kind], workspaces[kind] = ledger.peak_bytes, ledger.workspace_bytes
        return Row(
            kept=kept,
            gradients=parameters.gradient_bytes,
            **peaks,
            workspaces=workspaces,
            frozen=parameters.frozen_bytes,
            trained=parameters.trained_bytes,
            state=parameters.state_bytes,
            cost=self,
        )


class HeadCost:
    """The head's peaks, forward and backward in one turn, with its features."""

    __slots__ = ("gradients", "parameters", "peaks", "workspaces")

    def __init__(self, head: HeadPart, setting: Setting) -> None:
        parameters = Parameters(setting)
        head.count(parameters)
        self.parameters = parameters.stored
        self.gradients = parameters.gradient_bytes
        self.peaks: dict[Pass, int] = {}
        self.workspaces: dict[Pass, int] = {}
        for kind in _PASSES:
            ledger = Ledger()
            ledger.allocate(head.features)
            head.turn(ledger, kind)
            self.peaks[kind], self.workspaces[kind] = ledger.peak_bytes, ledger.workspace_bytes


class _BlockRows:
    """Of blocks whose input has the same side, inside a stretch.

    Blocks are known by identity, which is quicker than by value: equal ones are mostly the same
    object, and the table holds on to those that it knows.
    """

    __slots__ = ("_blocks", "_in_size", "_setting", "by_identity")

    def __init__(self, setting: Setting, in_size: int) -> None:
        self._setting = setting
        self._in_size = in_size
        self._blocks: list[BlockConfig] = []
        self.by_identity: dict[int, Row] = {}

    def row(self, block: BlockConfig) -> Row:
        return self.by_identity.get(id(block)) or self.add(block)

    def add(self, block: BlockConfig) -> Row:
        if len(self._blocks) >= _MAX_BLOCKS:
            self.by_identity.clear()
            self._blocks.clear()
        part = BlockPart(block, self._setting, self._in_size)
        found = self.by_identity[id(block)] = PartCost(part, self._setting).inside
        self._blocks.append(block)
        return found


class SettingCosts:
    """The costs of parts in one setting: rows for the inside of a stretch, and the head."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.blocks = lru_cache(maxsize=64)(lambda in_size: _BlockRows(setting, in_size))
        self.stem = lru_cache(maxsize=256)(self._stem)
        self.tail = lru_cache(maxsize=256)(self._tail)
        self.head = lru_cache(maxsize=256)(self._head)

    def _stem(self, conv: ConvConfig, in_size: int) -> Row:
        return PartCost(StemPart(conv, self._setting, in_size), self._setting).inside

    def _tail(self, before_pool: ConvConfig, after_pool: ConvConfig | None, in_size: int) -> Row:
        part = TailPart(before_pool, after_pool, self._setting, in_size)
        return PartCost(part, self._setting).inside

    def _head(self, num_features: int, num_classes: int, has_dropout: bool) -> HeadCost:
        head = HeadPart(num_features, num_classes, self._setting, has_dropout=has_dropout)
        return HeadCost(head, self._setting)


@lru_cache(maxsize=64)
def costs_by_size(
    norm: NormConfig,
    padding: Padding,
    method: Method,
    frozen_bits: int,
    optimizer_bits: OptimizerBits,
    trained_bits: TrainedBits,
) -> Callable[[int], SettingCosts]:
    """The costs for micro-batches of so many images."""

    @lru_cache(maxsize=64)
    def of_size(num_images: int) -> SettingCosts:
        return SettingCosts(
            Setting(
                norm=norm,
                padding=padding,
                method=method,
                num_images=num_images,
                frozen_bits=frozen_bits,
                optimizer_bits=optimizer_bits,
                trained_bits=trained_bits,
            )
        )

    return of_size
