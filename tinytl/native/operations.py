"""The operations that the device trainer knows, as its own sources list them (operations.def)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Access = Literal["READ", "WRITE", "UPDATE"]
When = Literal["ALWAYS", "FIRST_PASS", "LAST_PASS"]
Clamp = Literal["NO_CLAMP", "RELU", "RELU6"]

WHEN: tuple[When, ...] = ("ALWAYS", "FIRST_PASS", "LAST_PASS")
CLAMPS: tuple[Clamp, ...] = ("NO_CLAMP", "RELU", "RELU6")
IS_BFLOAT16, HAS_CODES, ADDS, NO_EXPANSION = 1, 2, 4, 8
"""Flags of an operation."""

PACKED_FLOATS = 32 * 1024
PIXEL_TABLE_FLOATS = 3 * 256
ADAM_BLOCK = 256
_MAX_LANES = 16


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What an operation does with one of its buffers; see operations.def."""

    name: str
    access: Access
    optional: bool
    role: str


@cache
def operation_table() -> Mapping[str, tuple[Operand, ...]]:
    """Operands by operation, in the order of the trainer's operation codes."""
    text = files("tinytl.native").joinpath("trainer", "operations.def").read_text()
    found: dict[str, list[Operand]] = {}
    for kind, inside in re.findall(r"^(OPERATION|OPERAND)\(([^)]*)\)$", text, re.MULTILINE):
        names = inside.split(", ")
        if kind == "OPERATION":
            current = found.setdefault(names[0], [])
        else:
            access: Any = names[1].removeprefix("OPTIONAL_")
            current.append(
                Operand(name=names[0], access=access, optional=access != names[1], role=names[2])
            )
    return {name: tuple(operands) for name, operands in found.items()}


@dataclass(kw_only=True, slots=True)
class Op:
    """One operation, its sizes those of one image; operands are what the unroller names."""

    code: str
    operands: Mapping[str, Any] = field(default_factory=dict)
    when: When = "ALWAYS"
    clamp: Clamp = "NO_CLAMP"
    flags: int = 0
    kernel: int = 1
    stride: int = 1
    pad_top: int = 0
    pad_left: int = 0
    in_size: int = 1
    out_size: int = 1
    in_channels: int = 0
    out_channels: int = 0
    groups: int = 1
    value: float = 0.0
    count: int = 0
    number: int = 0

    @property
    def taps(self) -> int:
        """Values that one output of a convolution is a sum of."""
        return self.in_channels // self.groups * self.kernel**2

    @property
    def code_number(self) -> int:
        return list(operation_table()).index(self.code)


def _columns_bytes(op: Op, images: int) -> int:
    return 4 * (PACKED_FLOATS + op.count * op.taps)


def _depthwise_bytes(side: int) -> int:
    return 4 * (8 * (side + 16) + 2 * 56) * _MAX_LANES


def _expanded_places(op: Op) -> int:
    return 0 if op.flags & NO_EXPANSION else op.in_size**2


def load_scratch_bytes(image_size: int, resolution: int) -> int:
    """A stored image, and what resizing it takes (LOAD_SCRATCH_BYTES of trainer/augment.h)."""
    taps = 2 * (image_size // resolution + 2)
    table = image_size * 3 * resolution + resolution * (8 + 2 * taps) + 8
    return (3 * image_size**2 + 3) // 4 * 4 + table // 4 * 4 + 4


ROLES: Mapping[str, Callable[[Op, int], int]] = {
    "PIXELS": lambda op, n: n * op.in_size**2 * op.in_channels,
    "IN_MAP": lambda op, n: 4 * n * op.in_size**2 * op.in_channels,
    "OUT_MAP": lambda op, n: 4 * n * op.out_size**2 * op.out_channels,
    "IN_BITS": lambda op, n: n * op.in_size**2 * op.in_channels // 8,
    "OUT_BITS": lambda op, n: n * op.out_size**2 * op.out_channels // 8,
    "IN_FLOATS": lambda op, n: 4 * op.in_channels,
    "OUT_FLOATS": lambda op, n: 4 * op.out_channels,
    "IN_ROWS": lambda op, n: 4 * n * op.in_channels,
    "OUT_ROWS": lambda op, n: 4 * n * op.out_channels,
    "IN_ROW_BITS": lambda op, n: n * op.in_channels // 8,
    "LABELS": lambda op, n: 2 * n,
    "GROUP_PAIRS": lambda op, n: 8 * n * op.groups,
    "INT8_WEIGHTS": lambda op, n: op.out_channels * op.taps,
    "WEIGHTS": lambda op, n: op.out_channels * op.taps * (2 if op.flags & IS_BFLOAT16 else 4),
    "WEIGHT_FLOATS": lambda op, n: 4 * op.out_channels * op.taps,
    "STEM_SCRATCH": lambda op, n: _columns_bytes(op, n) + 4 * PIXEL_TABLE_FLOATS,
    "PRODUCT_SCRATCH": lambda op, n: 4 * PACKED_FLOATS,
    "CONVOLUTION_SCRATCH": _columns_bytes,
    "DEPTHWISE_IN_SCRATCH": lambda op, n: _depthwise_bytes(op.in_size),
    "DEPTHWISE_OUT_SCRATCH": lambda op, n: _depthwise_bytes(op.out_size),
    "EXPAND_WEIGHTS": lambda op, n: op.number * op.in_channels,
    "MIDDLE_WEIGHTS": lambda op, n: op.number * op.kernel**2,
    "PROJECT_WEIGHTS": lambda op, n: op.out_channels * op.number,
    "MIDDLE_FLOATS": lambda op, n: 4 * op.number,
    "EXPAND_BITS": lambda op, n: n * op.in_size**2 * op.number // 8,
    "MIDDLE_BITS": lambda op, n: n * op.out_size**2 * op.number // 8,
    "INVERTED_SCRATCH": lambda op, n: (
        4 * (PACKED_FLOATS + n * op.count * (op.out_size**2 + _expanded_places(op)))
        + _depthwise_bytes(max(op.in_size, op.out_size))
    ),
    "POOLED_SCRATCH": lambda op, n: 4 * (PACKED_FLOATS + n * op.in_size**2 * op.count),
    "LOAD_SCRATCH": lambda op, n: load_scratch_bytes(op.out_size, op.in_size),
    "COUNT_FLOATS": lambda op, n: 4 * op.count,
    "COUNT_VALUES": lambda op, n: op.count * (2 if op.flags & IS_BFLOAT16 else 4),
    "COUNT_MOMENTS": lambda op, n: op.count * (1 if op.flags & HAS_CODES else 4),
    "COUNT_SCALES": lambda op, n: 4 * -(-op.count // ADAM_BLOCK),
}
"""Bytes of an operand, by its role: of an operation, for so many images."""
