"""Where a rectifier lets gradients through, in one bit per element (TinyTL paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from tinytl.ledger import MASK_CHUNK_BYTES

Rectifier = Literal["relu", "relu6"]

_RELU6_MAX = 6.0
_PACK_FACTOR = 0x0102040810204080
_SPREAD_FACTOR = 0x0101010101010101
_SPREAD_MASK = 0x8040201008040201 - (1 << 64)


def pack_bits(mask: Tensor) -> Tensor:
    """Pack a flat bool tensor, whose size is a multiple of 8, into bits of uint8.

    Eight bools are read as one 64-bit word; a multiplication gathers them in its top byte.
    """
    words = mask.view(torch.int64)
    return (words * _PACK_FACTOR).bitwise_right_shift_(56).to(torch.uint8)


def unpack_bits(bits: Tensor) -> Tensor:
    """The flat bool tensor that pack_bits packed."""
    words = bits.to(torch.int64).mul_(_SPREAD_FACTOR).bitwise_and_(_SPREAD_MASK)
    return words.view(torch.uint8).ne(0)


def rectify_(x: Tensor, rectifier: Rectifier) -> Tensor:
    """ReLU or ReLU6 in place."""
    return x.clamp_(0, _RELU6_MAX) if rectifier == "relu6" else x.clamp_(min=0)


def open_mask(y: Tensor, rectifier: Rectifier) -> Tensor:
    """Where a rectifier with output y (N, C, H, W), channels last, is not cut off: a bit each."""
    flat = y.permute(0, 2, 3, 1).view(-1)
    bits = torch.empty(flat.numel() // 8, dtype=torch.uint8, device=y.device)
    for part, part_bits in _chunks(flat, bits):
        mask = part > 0
        if rectifier == "relu6":
            mask.logical_and_(part < _RELU6_MAX)
        part_bits.copy_(pack_bits(mask))
    return bits


def mask_(grad: Tensor, bits: Tensor) -> Tensor:
    """Set grad (N, C, H, W), channels last, to zero where the mask is closed, in place."""
    for part, part_bits in _chunks(grad.permute(0, 2, 3, 1).view(-1), bits):
        part.mul_(unpack_bits(part_bits))
    return grad


def _chunks(values: Tensor, bits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat values and the bits that belong to them, a stretch at a time: bools take room."""
    for start in range(0, bits.numel(), MASK_CHUNK_BYTES):
        stop = start + MASK_CHUNK_BYTES
        yield values[8 * start : 8 * stop], bits[start:stop]
