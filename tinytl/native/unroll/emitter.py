"""Writes the operations of a program down, segment by segment, and asks for their buffers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from tinytl.native.operations import ROLES, Op, When, operation_table
from tinytl.native.unroll.memory import Buffer, Map, Storage
from tinytl.native.unroll.parameters import Parameter

Phase = Literal["training", "evaluation"]


@dataclass(eq=False, kw_only=True)
class Segment:
    """Operations that each micro-batch passes before the next segment begins.

    batch_size: images of a step, of which micro_batch_size pass at a time.
    """

    phase: Phase
    micro_batch_size: int
    batch_size: int
    ops: list[Op] = field(default_factory=list)
    _gradients: dict[str, Buffer] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        return self.micro_batch_size == self.batch_size

    def emit(self, code: str, *, when: When = "ALWAYS", **fields: Any) -> None:
        """An operation; names of operands give buffers (None where optional), others its sizes.

        Scratch memory is added.
        """
        operands = {}
        for operand in operation_table()[code]:
            name = operand.name
            if name in fields:
                operands[name] = fields.pop(name)
            elif name == "scratch":
                operands[name] = None
                scratch_role = operand.role
            assert operand.optional or name in operands, (code, name)
        op = Op(code=code, when=when, operands=operands, **fields)
        if "scratch" in operands:
            size = ROLES[scratch_role](op, self.micro_batch_size)
            operands["scratch"] = Buffer(storage=Storage(num_bytes=size), num_bytes=size)
        self.ops.append(op)

    def temporary(self, image_bytes: int) -> Buffer:
        """Bytes for each image, for as long as operations name them."""
        size = image_bytes * self.micro_batch_size
        return Buffer(storage=Storage(num_bytes=size), num_bytes=size)

    def kept(self, image_bytes: int, *, waits: bool) -> Buffer:
        """Bytes for each image that another segment may ask for, where `waits` says so: then those
        of the whole batch are held."""
        if not waits or self.is_single:
            return self.temporary(image_bytes)
        storage = Storage(num_bytes=image_bytes * self.batch_size, spans_passes=True)
        return self.slices(storage, image_bytes)

    def slices(self, storage: Storage, image_bytes: int) -> Buffer:
        """The micro-batch's part of what is held for the whole batch."""
        size = image_bytes * self.micro_batch_size
        stride = 0 if self.is_single else size
        return Buffer(storage=storage, num_bytes=size, stride=stride)

    def new_map(self, channels: int, size: int) -> Map:
        return Map(buffer=self.temporary(4 * channels * size**2), channels=channels, size=size)

    def gradient(self, parameter: Parameter) -> Buffer:
        """Where the parameter's gradient is added up; zeros before the first micro-batch."""
        found = self._gradients.get(parameter.name)
        if found is None:
            size = 4 * parameter.count
            storage = Storage(num_bytes=size, spans_passes=not self.is_single)
            found = Buffer(storage=storage, num_bytes=size)
            self._gradients[parameter.name] = found
            self.emit("ZERO", when="FIRST_PASS", values=found, count=parameter.count)
        return found

    def finish(self, parameter: Parameter) -> None:
        """The gradient is complete with the last micro-batch: Adam takes it."""
        self.emit(
            "ADAM",
            when="LAST_PASS",
            grad=self._gradients[parameter.name],
            values=parameter.values,
            first=parameter.first,
            second=parameter.second,
            first_scales=parameter.first_scales,
            second_scales=parameter.second_scales,
            count=parameter.count,
            number=parameter.number,
            flags=parameter.flags,
        )

    def buffers(self) -> Iterator[Buffer]:
        for op in self.ops:
            yield from (buffer for buffer in op.operands.values() if buffer is not None)
