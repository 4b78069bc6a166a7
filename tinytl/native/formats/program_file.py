"""The program file: what the device trainer maps and reads (trainer/program.h has its format)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from tinytl.errors import BundleError
from tinytl.native.formats.records import BUFFER, HEADER, OP, SECTIONS, SEGMENT
from tinytl.native.operations import CLAMPS, WHEN, Op, operation_table
from tinytl.squares import FITS, Squaring, Transparency

MAGIC = b"TFPROG\r\n"
VERSION = 2
MAX_OPERANDS = 16
NO_BUFFER = 0xFFFF
PORTS = (
    *("train_labels", "train_keep"),
    *("evaluate_images", "evaluate_scratch", "evaluate_logits"),
)
_ALIGNMENT = 64
_NUMBERS = (
    *("arena_bytes", "state_bytes", "value_bytes"),
    *("resolution", "image_size", "batch_size"),
    *("num_classes", "max_classes", "num_features"),
    *("classifier_bytes", "classifier", "classifier_bias"),
    *("seed", "horizontal_flip"),
    *("fit", "transparency"),
)
_FLOATS = (
    *("learning_rate", "label_smoothing", "dropout_rate", "min_crop_scale"),
    *("mean_red", "mean_green", "mean_blue"),
    *("deviation_red", "deviation_green", "deviation_blue"),
)
_PHASES = ("training", "evaluation")
TRANSPARENCIES: tuple[Transparency, ...] = get_args(Transparency)
MAX_PROGRAM_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class PlacedBuffer:
    """Where an operand lies; see buffer_t."""

    in_arena: bool
    offset: int
    stride: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class PlacedSegment:
    first: int
    count: int
    micro_batch_size: int
    phase: str


def pack_op(op: Op, operands: Sequence[int]) -> bytes:
    """operands: numbers of buffers in the operation's order, or NO_BUFFER."""
    filled = [*operands, *[NO_BUFFER] * (MAX_OPERANDS - len(operands))]
    return OP.pack(
        op.code_number,
        WHEN.index(op.when),
        CLAMPS.index(op.clamp),
        op.flags,
        op.kernel,
        op.stride,
        op.pad_top,
        op.pad_left,
        op.in_size,
        op.out_size,
        op.in_channels,
        op.out_channels,
        op.groups,
        op.value,
        op.count,
        op.number,
        *filled,
    )


def pack_program(
    *,
    ops: Sequence[bytes],
    buffers: Sequence[PlacedBuffer],
    segments: Sequence[PlacedSegment],
    classes: Sequence[str],
    frozen: bytes,
    values: bytes,
    ports: dict[str, int],
    numbers: dict[str, int],
    floats: dict[str, float],
    bundle_sha256: bytes,
) -> bytes:
    """The file's bytes. numbers, floats: the header's fields of these names."""
    contents = [
        b"".join(ops),
        b"".join(BUFFER.pack(b.in_arena, b.offset, b.stride, b.num_bytes) for b in buffers),
        b"".join(
            SEGMENT.pack(s.first, s.count, s.micro_batch_size, _PHASES.index(s.phase))
            for s in segments
        ),
        b"".join(bytes([len(name.encode())]) + name.encode() for name in classes),
        frozen,
        values,
    ]
    table: list[int] = []
    body = bytearray(HEADER.size)
    for content in contents:
        body.extend(bytes(-len(body) % _ALIGNMENT))
        table += [len(body), len(content), zlib.crc32(content)]
        body.extend(content)

    def header(crc: int) -> bytes:
        return HEADER.pack(
            MAGIC,
            VERSION,
            crc,
            bundle_sha256,
            *table,
            *(numbers[name] for name in _NUMBERS),
            *(ports.get(name, NO_BUFFER) for name in PORTS),
            *(0, 0, 0),
            *(floats[name] for name in _FLOATS),
        )

    body[: HEADER.size] = header(zlib.crc32(header(0)))
    return bytes(body)


@dataclass(frozen=True, kw_only=True)
class ProgramFile:
    """A program that has been read."""

    content: bytes
    numbers: dict[str, int]
    floats: dict[str, float]
    bundle_sha256: bytes
    header_crc: int
    classes: tuple[str, ...]
    sections: dict[str, tuple[int, int]]

    def section(self, name: str) -> bytes:
        offset, size = self.sections[name]
        return self.content[offset : offset + size]

    @property
    def squaring(self) -> Squaring:
        """How pictures became squares. Raises DataError for what is not known."""
        return squaring_of(self.numbers["fit"], self.numbers["transparency"])

    @property
    def mapped_bytes(self) -> int:
        """Of the file, what the trainer reads where it lies."""
        return sum(self.sections["frozen"])


def squaring_numbers(squaring: Squaring) -> dict[str, int]:
    """The header's fields of these names."""
    return {
        "fit": FITS.index(squaring.fit),
        "transparency": TRANSPARENCIES.index(squaring.transparency),
    }


def squaring_of(fit: int, transparency: int) -> Squaring:
    """What squaring_numbers gave."""
    if fit >= len(FITS) or transparency >= len(TRANSPARENCIES):
        raise BundleError(f"the program's images are squared in an unknown way: {fit}")
    return Squaring(fit=FITS[fit], transparency=TRANSPARENCIES[transparency])


def read_program(content: bytes) -> ProgramFile:
    """Raises BundleError for what is no program, is damaged, or of another version."""
    if len(content) < HEADER.size or content[:8] != MAGIC:
        raise BundleError("it is no program of the device trainer")
    fields = HEADER.unpack_from(content)
    version, crc, sha256 = fields[1:4]
    if version != VERSION:
        raise BundleError(
            f"it is a program of version {version}; this version of tinyfit reads {VERSION}"
        )
    blank = bytearray(content[: HEADER.size])
    blank[12:16] = bytes(4)
    if zlib.crc32(blank) != crc:
        raise BundleError("the program's header is damaged")
    table, rest = fields[4:22], fields[22:]
    sections = {}
    for number, name in enumerate(SECTIONS):
        offset, size, section_crc = table[3 * number : 3 * number + 3]
        if zlib.crc32(content[offset : offset + size]) != section_crc:
            raise BundleError(f"the program is damaged, in its {name}")
        sections[name] = offset, size
    return ProgramFile(
        content=content,
        numbers=dict(zip(_NUMBERS, rest, strict=False)),
        floats=dict(zip(_FLOATS, rest[-len(_FLOATS) :], strict=True)),
        bundle_sha256=sha256,
        header_crc=crc,
        classes=_names(content, *sections["classes"]),
        sections=sections,
    )


def _names(content: bytes, offset: int, size: int) -> tuple[str, ...]:
    names, at = [], offset
    while at < offset + size:
        length = content[at]
        names.append(content[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return tuple(names)


assert len(operation_table()) < 256
