"""Where a rectifier lets gradients through, in one bit per element (TinyTL paper, section 3.1).

Bits are packed in words of 16, chunk by chunk. Of a chunk of n words, word i has value b n + i in
its bit b, so that every operation runs along n neighbours. On the CPU torch is slow to convert
between types, so nothing is converted: with m = 1 / eps, the float m + word has the word in its
lowest bits. It is a sum of m and powers of two; and cut down to one bit, it is m, or more.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from tinytl.description.chunks import MASK_CHUNK_WORDS, MASK_WORD_BITS, num_mask_words

Rectifier = Literal["relu", "relu6"]

_RELU6_MAX = 6.0
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def clamp_(x: Tensor, rectifier: Rectifier) -> Tensor:
    """ReLU or ReLU6 in place."""
    return x.clamp_(0, _RELU6_MAX) if rectifier == "relu6" else x.clamp_(min=0)


def clamp_and_pack_(x: Tensor, rectifier: Rectifier) -> Tensor:
    """clamp_ of x (N, C, H, W), channels last, and where that cuts nothing off: a bit each, as
    int16. N C H W is a multiple of 8.
    """
    flat = _flat(x)
    words = torch.empty(num_mask_words(flat.numel()), dtype=torch.int16, device=x.device)
    one, powers = x.new_ones(()), _powers(x.dtype, x.device)
    room = x.new_empty((MASK_WORD_BITS + 2) * min(len(words), MASK_CHUNK_WORDS))
    for chunks, chunks_words in _chunks(flat, words):
        num_bits, length = chunks.shape[1:]
        rows = room[: (MASK_WORD_BITS + 2) * length].view(-1, length)
        slopes, summed, sums = rows[:num_bits], rows[:-1].t(), rows[-1]
        rows[num_bits:MASK_WORD_BITS].zero_()
        rows[MASK_WORD_BITS].fill_(_base(x.dtype))
        low = _low_bits(sums)
        for chunk, its_words in zip(chunks.unbind(), chunks_words.unbind(), strict=True):
            _slopes(clamp_(chunk, rectifier), rectifier, one, slopes)
            torch.mv(summed, powers, out=sums)
            its_words.copy_(low)
    return words


def _slopes(y: Tensor, rectifier: Rectifier, one: Tensor, out: Tensor) -> None:
    """1 where the rectifier is open, else 0, from its output."""
    if rectifier == "relu6":
        torch.ops.aten.hardtanh_backward.grad_input(one, y, 0, _RELU6_MAX, grad_input=out)
    else:
        torch.ops.aten.threshold_backward.grad_input(one, y, 0, grad_input=out)


def apply_mask_(grad: Tensor, words: Tensor) -> Tensor:
    """Set grad (N, C, H, W), channels last, to zero where the mask is closed, in place."""
    base, single_bits = _base(grad.dtype), _single_bits(grad.dtype, grad.device)
    room = grad.new_empty((MASK_WORD_BITS + 1) * min(len(words), MASK_CHUNK_WORDS))
    for chunks, chunks_words in _chunks(_flat(grad), words):
        num_bits, length = chunks.shape[1:]
        rows = room[: (num_bits + 1) * length].view(-1, length)
        rows[-1].fill_(base)
        low, openness = _low_bits(rows[-1]), rows[:-1]
        integers = rows.view(single_bits.dtype)
        wide, bits = integers[-1], integers[:-1]
        for chunk, its_words in zip(chunks.unbind(), chunks_words.unbind(), strict=True):
            low.copy_(its_words)
            torch.bitwise_and(wide, single_bits[:num_bits], out=bits)
            torch.ops.aten.threshold_backward.grad_input(chunk, openness, base, grad_input=chunk)
    return grad


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).view(-1)


def _chunks(flat: Tensor, words: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks (number, bits, n) of one length, and their words (number, n): those of
    MASK_CHUNK_WORDS, a shorter one, and one of the 8 values that may be over."""
    num_full = len(flat) // MASK_WORD_BITS
    split = num_full - num_full % MASK_CHUNK_WORDS
    for start, stop, length in (
        (0, split, MASK_CHUNK_WORDS),
        (split, num_full, num_full - split),
    ):
        if start < stop:
            values = flat[start * MASK_WORD_BITS : stop * MASK_WORD_BITS]
            yield values.view(-1, MASK_WORD_BITS, length), words[start:stop].view(-1, length)
    if num_full < len(words):
        yield flat[num_full * MASK_WORD_BITS :].view(1, -1, 1), words[num_full:].view(1, 1)


def _base(dtype: torch.dtype) -> float:
    """The float whose neighbours are integers."""
    return 1 / torch.finfo(dtype).eps


def _low_bits(floats: Tensor) -> Tensor:
    """The lowest 16 bits of floats (n,), as int16 (n,): a view."""
    return floats.view(torch.int16)[:: floats.itemsize // 2]


@lru_cache
def _powers(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What each row of a chunk's slopes counts in the sum, and the last, the base."""
    powers = 2.0 ** torch.arange(MASK_WORD_BITS + 1, dtype=dtype)
    powers[-1] = 1
    return powers.to(device)


@lru_cache
def _single_bits(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Bits of the base and one bit of a word, for each (MASK_WORD_BITS, 1), as integers."""
    sums = _base(dtype) + 2.0 ** torch.arange(MASK_WORD_BITS, dtype=dtype)
    return sums.view(_INTEGERS[dtype])[:, None].to(device)
