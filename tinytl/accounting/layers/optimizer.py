"""What tinytl.engine.optimizer's Adam takes: its moments, and the temporaries of one update.

Plain arithmetic, beside the code that it describes; the step count (8 bytes) is left out.
"""

from __future__ import annotations

import math
from typing import Literal

from tinytl.description.chunks import ADAM_CHUNK_VALUES, MOMENT_BLOCK_VALUES, has_8bit_moments
from tinytl.description.plan import OptimizerBits

_FLOAT_BYTES = 4
_NOISE_BYTES = 2
_SMALL_BYTES = 256
"""Scalars and random state words that operators allocate for a moment."""


def state_bytes(num_values: int, state_bits: OptimizerBits, value_bytes: int = 4) -> int:
    """Bytes of both moments of one tensor, scales included.

    value_bytes: of one moment where it is no 8-bit code.
    """
    if not has_8bit_moments(num_values, state_bits):
        return 2 * num_values * value_bytes
    return 2 * (num_values + math.ceil(num_values / MOMENT_BLOCK_VALUES) * _FLOAT_BYTES)


def update_bytes(num_values: int, state_bits: OptimizerBits, trained_bits: Literal[32, 16]) -> int:
    """Bytes that one update of one tensor takes for a while; an upper bound.

    trained_bits: of the tensor; its gradient is float32. Beside them and the state. Nothing here
    grows beyond a chunk.
    """
    coded = has_8bit_moments(num_values, state_bits)
    chunk = min(num_values, ADAM_CHUNK_VALUES)
    blocks = math.ceil(chunk / MOMENT_BLOCK_VALUES)
    padded = blocks * MOMENT_BLOCK_VALUES if coded else chunk
    rows = (2 if coded else 0) + (1 if trained_bits == 16 else 0)
    noise = padded * _NOISE_BYTES if rows else 0
    factors = 2 * blocks * _FLOAT_BYTES if coded else 0
    return rows * padded * _FLOAT_BYTES + noise + factors + _SMALL_BYTES
