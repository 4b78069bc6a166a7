"""The trained values of a network and their moments, which are the trainer's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinytl.description.chunks import MOMENT_BLOCK_VALUES, has_8bit_moments
from tinytl.description.plan import OptimizerBits
from tinytl.native.operations import HAS_CODES, IS_BFLOAT16
from tinytl.native.unroll.memory import ALIGNMENT, Buffer, Storage

if TYPE_CHECKING:
    from torch import Tensor

    from tinytl.engine.network import Network


@dataclass(frozen=True, eq=False, kw_only=True)
class Parameter:
    """One trained tensor. number: as tinytl.engine.optimizer counts them; count: its values, with
    room for classes to come. Moments' scales are None where moments have 32 bits."""

    name: str
    number: int
    shape: tuple[int, ...]
    count: int
    is_bfloat16: bool
    values: Buffer
    first: Buffer
    second: Buffer
    first_scales: Buffer | None
    second_scales: Buffer | None

    @property
    def flags(self) -> int:
        coded = HAS_CODES if self.first_scales is not None else 0
        return coded | (IS_BFLOAT16 if self.is_bfloat16 else 0)


def in_device_order(values: Tensor) -> Tensor:
    """A tensor as the device holds it: weights (out, in, k, k) as (out, k, k, in)."""
    return values.permute(0, 2, 3, 1).contiguous() if values.dim() == 4 else values.contiguous()


def from_device_order(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The other way: flat values as a tensor of this shape."""
    if len(shape) != 4:
        return values.view(shape)
    out, inside, height, width = shape
    return values.view(out, height, width, inside).permute(0, 3, 1, 2).contiguous()


class Parameters:
    """All of them, laid out: values first, then moments, at the arena's beginning."""

    def __init__(
        self, network: Network, optimizer_bits: OptimizerBits, *, reserved_classes: int
    ) -> None:
        self._end = 0
        tensors: Mapping[str, Tensor] = network.trained_parameters()
        counts = {
            name: tensor.numel() + reserved_classes * tensor[0].numel()
            if name.startswith("classifier.")
            else tensor.numel()
            for name, tensor in tensors.items()
        }
        values = {
            name: self._take(counts[name] * tensor.element_size())
            for name, tensor in tensors.items()
        }
        self.value_bytes = self._end
        self.by_name: dict[str, Parameter] = {}
        for number, (name, tensor) in enumerate(tensors.items()):
            count = counts[name]
            coded = has_8bit_moments(count, optimizer_bits)
            moment = [self._take(count * (1 if coded else 4)) for _ in range(2)]
            num_blocks = math.ceil(count / MOMENT_BLOCK_VALUES)
            scales = [self._take(4 * num_blocks) if coded else None for _ in range(2)]
            self.by_name[name] = Parameter(
                name=name,
                number=number,
                shape=tuple(tensor.shape),
                count=count,
                is_bfloat16=tensor.element_size() == 2,
                values=values[name],
                first=moment[0],
                second=moment[1],
                first_scales=scales[0],
                second_scales=scales[1],
            )
        self.state_bytes = self._end

    def reserve(self, num_bytes: int) -> None:
        """More state, which are its last bytes."""
        self._take(num_bytes)
        self.state_bytes = self._end

    def _take(self, num_bytes: int) -> Buffer:
        buffer = Buffer(
            storage=PERSISTENT, num_bytes=num_bytes, offset=-(-self._end // ALIGNMENT) * ALIGNMENT
        )
        self._end = buffer.offset + num_bytes
        return buffer


PERSISTENT = Storage(num_bytes=0)
"""The arena's beginning, where buffers have offsets of their own."""
