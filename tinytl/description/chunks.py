"""How much is worked on at a time: what bounds the engine's temporaries.

The engine allocates by these constants and the accounting prices by them, so neither needs the
other.
"""

from __future__ import annotations

from tinytl.description.plan import OptimizerBits

MASK_WORD_BITS = 16
"""Values whose bits are a word of a rectifier's mask."""

MASK_CHUNK_WORDS = 1920
"""Words of a mask that are packed or unpacked at a time."""

HARD_SWISH_CHUNK_VALUES = 1 << 14
"""Values of a map that are differentiated at a time, where the activation is hard swish."""

DEQUANTIZE_CHUNK_VALUES = 1 << 18
"""Values of a large frozen matrix that are dequantized at a time."""

ADAM_CHUNK_VALUES = 32768
"""Values of a tensor that are updated together."""

MOMENT_BLOCK_VALUES = 256
"""Neighbouring values whose 8-bit moments share a scale; divides ADAM_CHUNK_VALUES."""

MIN_8BIT_VALUES = 4096
"""Smaller tensors (biases, mostly) keep 32-bit moments: few bytes, and the most sensitive."""


def num_mask_words(num_values: int) -> int:
    """Words that a mask of so many values takes."""
    return -(-num_values // MASK_WORD_BITS)


def has_8bit_moments(num_values: int, state_bits: OptimizerBits) -> bool:
    """Whether Adam keeps the moments of a tensor of so many values in 8 bits."""
    return state_bits == 8 and num_values >= MIN_8BIT_VALUES
