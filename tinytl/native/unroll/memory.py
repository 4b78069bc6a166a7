"""Buffers of a program that is being unrolled: in the arena, or among the frozen values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = 64


@dataclass(eq=False, kw_only=True, slots=True)
class Storage:
    """Bytes of the arena. spans_passes: they hold something from one micro-batch to the next."""

    num_bytes: int
    spans_passes: bool = False


@dataclass(eq=False, kw_only=True, slots=True)
class Buffer:
    """What an operand names. storage None: among the frozen values, at offset.

    stride: bytes from one micro-batch's part to the next one's.
    """

    storage: Storage | None
    num_bytes: int
    offset: int = 0
    stride: int = 0


def part_of(buffer: Buffer, offset: int, num_bytes: int) -> Buffer:
    """Some bytes of a buffer that holds the same for every micro-batch."""
    assert buffer.stride == 0
    return replace(buffer, offset=buffer.offset + offset, num_bytes=num_bytes)


@dataclass(eq=False, kw_only=True, slots=True)
class Map:
    """A map (images, size, size, channels) of floats, or what a micro-batch has of one.

    spare: whoever takes it may write over it.
    """

    buffer: Buffer
    channels: int
    size: int
    spare: bool = True

    @property
    def image_bytes(self) -> int:
        return 4 * self.channels * self.size**2


class FrozenValues:
    """The read-only section of a program."""

    def __init__(self) -> None:
        self._content = bytearray()

    def add(self, values: Tensor) -> Buffer:
        """Values in the order of their memory."""
        import numpy as np  # not where sizes alone are asked for

        self._content.extend(bytes(-len(self._content) % ALIGNMENT))
        data = np.ascontiguousarray(values.detach().cpu().numpy()).tobytes()
        buffer = Buffer(storage=None, num_bytes=len(data), offset=len(self._content))
        self._content.extend(data)
        return buffer

    def add_floats(self, values: Tensor) -> Buffer:
        return self.add(values.detach().float())

    @property
    def content(self) -> bytes:
        return bytes(self._content)
