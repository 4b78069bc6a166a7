"""Bytes as they come and go while a part of the network runs: the peak is what counts.

The constants that bound temporaries are here, beside what prices them; the code that allocates
imports them.
"""

from __future__ import annotations

from typing import Literal

FLOAT_BYTES = 4

MASK_CHUNK_BYTES = 1 << 12
"""Bytes of a rectifier's bit mask that are packed or unpacked at a time."""

HARD_SWISH_VALUES = 1 << 14
"""Values of a map that are differentiated at a time, where the activation is hard swish."""

WIDENED_VALUES = 1 << 18
"""Values of a large frozen matrix that are widened at a time."""

Pass = Literal["only", "first", "middle", "last"]
"""Which of a batch's micro-batches passes backward: it decides what becomes of gradients."""


class Ledger:
    """A sum of bytes, and the largest that it has been.

    workspace_bytes: of the peak, what operators take inside and give back before they return.
    """

    __slots__ = ("now_bytes", "peak_bytes", "workspace_bytes")

    def __init__(self) -> None:
        self.now_bytes = 0
        self.peak_bytes = 0
        self.workspace_bytes = 0

    def hold(self, num_bytes: int) -> None:
        """Bytes that stay until they are dropped."""
        self.now_bytes += num_bytes
        self.touch()

    def drop(self, num_bytes: int) -> None:
        self.now_bytes -= num_bytes

    def touch(self, num_bytes: int = 0, *, workspace: int = 0) -> None:
        """Bytes that are there for a moment, and the workspace of an operator at that moment."""
        total = self.now_bytes + num_bytes + workspace
        if total > self.peak_bytes:
            self.peak_bytes = total
            self.workspace_bytes = workspace
