"""Bytes as they come and go while a part of the network runs: the peak is what counts."""

from __future__ import annotations

from typing import Literal

FLOAT_BYTES = 4

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

    def allocate(self, num_bytes: int) -> None:
        """Bytes that stay until they are dropped."""
        self.now_bytes += num_bytes
        self.transient()

    def free(self, num_bytes: int) -> None:
        self.now_bytes -= num_bytes

    def transient(self, num_bytes: int = 0, *, workspace: int = 0) -> None:
        """Bytes that are there for a moment, and the workspace of an operator at that moment."""
        total = self.now_bytes + num_bytes + workspace
        if total > self.peak_bytes:
            self.peak_bytes = total
            self.workspace_bytes = workspace
