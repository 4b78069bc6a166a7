"""What each part of a network costs, once for every setting: tables that pricing looks up.

A search prices the same blocks again and again. So a part's events (tinytl.parts) are gone through
once for a setting and a way backward, and the peaks are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from tinytl.config import BlockConfig, ConvConfig, NormConfig
from tinytl.ledger import Ledger, Pass
from tinytl.operations import Parameters, Setting
from tinytl.parts import BlockPart, HeadPart, Part, StemPart, TailPart, Where
from tinytl.plan import OptimizerBits, TrainedBits
from tinytl.trainable import Method

Peak = tuple[int, int]
"""The most bytes that there are at a time, and how many of them are workspace of an operator."""

_INSIDE = Where()
"""Neither the first part that learns nor the last of its stretch: most parts, most of the time."""

_MAX_BLOCKS = 1 << 12
"""Blocks that a table holds before it starts anew."""


class Turn(dict[Pass, Peak]):
    """Peaks of something's backward, by the pass; each is found when it is first asked for."""

    __slots__ = ("_events",)

    def __init__(self, events: Callable[[Ledger, Pass], None]) -> None:
        self._events = events

    def __missing__(self, kind: Pass) -> Peak:
        ledger = Ledger()
        self._events(ledger, kind)
        self[kind] = found = (ledger.peak_bytes, ledger.workspace_bytes)
        return found


class _Counted(Protocol):
    def count(self, parameters: Parameters) -> None: ...


class _Cost:
    """parameters: bytes of frozen weights, of trained values, of the optimizer's state."""

    __slots__ = ("gradient_bytes", "parameters")

    def __init__(self, part: _Counted, setting: Setting) -> None:
        found = Parameters(setting)
        part.count(found)
        self.parameters = (found.frozen_bytes, found.trained_bytes, found.state_bytes)
        self.gradient_bytes = found.gradient_bytes


class PartCost(_Cost):
    """A part's peaks in a setting, beside its input.

    x, y, kept, keeps_input: as in tinytl.parts.Part. forward, taped: the peak of forward, where
    backward will not follow and where it will. inside: of backward, for most parts.
    """

    __slots__ = (
        "_elsewhere",
        "_part",
        "forward",
        "inside",
        "keeps_input",
        "kept",
        "taped",
        "x",
        "y",
    )

    def __init__(self, part: Part, setting: Setting) -> None:
        super().__init__(part, setting)
        self._part = part
        self._elsewhere: dict[Where, Turn] = {}
        self.x, self.y, self.kept = part.x, part.y, part.kept
        self.keeps_input = part.keeps_input
        self.forward = self._forward(taped=False)
        self.taped = self._forward(taped=True)
        self.inside = self.backward(_INSIDE)

    def _forward(self, *, taped: bool) -> Peak:
        ledger = Ledger()
        self._part.forward(ledger, taped=taped)
        return ledger.peak_bytes, ledger.workspace_bytes

    def backward(self, where: Where) -> Turn:
        """With what the part kept, and the output's gradient unless it is shared."""
        found = self._elsewhere.get(where)
        if found is None:
            found = self._elsewhere[where] = Turn(
                lambda ledger, kind: self._run_backward(ledger, kind, where)
            )
        return found

    def _run_backward(self, ledger: Ledger, kind: Pass, where: Where) -> None:
        ledger.hold(0 if where.input_is_shared and self.keeps_input else self.kept)
        ledger.hold(0 if where.grad_is_shared else self.y)
        self._part.backward(ledger, kind, where)


class HeadCost(_Cost):
    """The head's peaks, forward and backward in one turn, with its features."""

    __slots__ = ("turn",)

    def __init__(self, head: HeadPart, setting: Setting) -> None:
        super().__init__(head, setting)

        def events(ledger: Ledger, kind: Pass) -> None:
            ledger.hold(head.features)
            head.turn(ledger, kind)

        self.turn = Turn(events)


class _BlockCosts(dict[BlockConfig, PartCost]):
    """Of blocks whose input has the same side."""

    __slots__ = ("_in_size", "_setting")

    def __init__(self, setting: Setting, in_size: int) -> None:
        self._setting = setting
        self._in_size = in_size

    def __missing__(self, block: BlockConfig) -> PartCost:
        if len(self) >= _MAX_BLOCKS:
            self.clear()
        part = BlockPart(block, self._setting, self._in_size)
        self[block] = found = PartCost(part, self._setting)
        return found


class SettingCosts:
    """The costs of parts in one setting."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.blocks = lru_cache(maxsize=64)(lambda in_size: _BlockCosts(setting, in_size))
        self.stem = lru_cache(maxsize=256)(self._stem)
        self.tail = lru_cache(maxsize=256)(self._tail)
        self.head = lru_cache(maxsize=256)(self._head)

    def _stem(self, conv: ConvConfig, in_size: int) -> PartCost:
        return PartCost(StemPart(conv, self._setting, in_size), self._setting)

    def _tail(
        self, before_pool: ConvConfig, after_pool: ConvConfig | None, in_size: int
    ) -> PartCost:
        part = TailPart(before_pool, after_pool, self._setting, in_size)
        return PartCost(part, self._setting)

    def _head(self, num_features: int, num_classes: int, has_dropout: bool) -> HeadCost:
        head = HeadPart(num_features, num_classes, self._setting, has_dropout=has_dropout)
        return HeadCost(head, self._setting)


@lru_cache(maxsize=64)
def costs_by_size(
    norm: NormConfig,
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
                method=method,
                num_images=num_images,
                frozen_bits=frozen_bits,
                optimizer_bits=optimizer_bits,
                trained_bits=trained_bits,
            )
        )

    return of_size
