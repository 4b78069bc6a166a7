"""Peak training bytes, predicted: everything counted, in plain Python.

The step is written down as the list of operations that the network performs (tinytl.operations),
each with the bytes that exist while it runs; the peak is found by going through the list forward
and back. Counted: frozen weights in the bits they are stored in, trained values, gradients,
Adam's moments, the uint8 batch, activations kept and passing, temporaries of the layers. Left
out: the interpreter, library code, and buffers inside operators that torch's allocator does not
hand out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinytl.config import NetworkConfig
from tinytl.operations import FLOAT_BYTES, Operation, Step, describe
from tinytl.plan import Plan
from tinytl.trainable import Method

_ADAM_STEP_BYTES = 4
_SMALL_TENSORS_BYTES = 1 << 14
"""Losses, labels, normalization constants and the like: a stated allowance."""


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Predicted peak in bytes, and what it consists of at the peak moment (sums to the total)."""

    total_bytes: int
    breakdown: dict[str, int]


def peak_memory(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    image_size: int | None = None,
    frozen_bits: int = 8,
) -> PeakMemory:
    """Predict the peak training bytes of a network, never below what a tracker measures.

    resolution: side of the square input in pixels; image_size: of the stored images, which are
    resized to it (None: the same). frozen_bits: what a frozen weight is stored in, 8 or 32.
    Lite residuals count where the network has them, trained or not.
    """
    step = Step(network.norm, method, plan.micro_batch_size, frozen_bits)
    describe(network, step, resolution, image_size or resolution)
    trained_bytes = step.trained_values * FLOAT_BYTES
    gradients, kept, passing = _peak(step.operations, trained_bytes, plan)
    parts = {
        "frozen_weights": step.frozen_bytes,
        "trained_values": trained_bytes,
        "optimizer_state": 2 * trained_bytes + _ADAM_STEP_BYTES * step.trained_tensors,
        "batch": plan.batch_size * 3 * resolution**2,
        "small_tensors": _SMALL_TENSORS_BYTES,
        "gradients": gradients,
        "kept_activations": kept,
        "passing_activations": passing,
    }
    return PeakMemory(total_bytes=sum(parts.values()), breakdown=parts)


def _peak(operations: list[Operation], gradient_bytes: int, plan: Plan) -> tuple[int, int, int]:
    """(gradients, kept, passing) bytes at the worst moment of the last micro-batch.

    With several micro-batches all gradients exist from the start of the last one.
    """
    accumulates = plan.micro_batch_size < plan.batch_size
    gradients = gradient_bytes if accumulates else 0
    kept = 0.0
    worst = (0.0, 0.0, 0.0)
    for operation in operations:
        worst = max(worst, (gradients, kept, operation.forward), key=sum)
        kept += operation.kept
    for operation in reversed(operations):
        passing = operation.backward + operation.gradient
        worst = max(worst, (gradients, kept, passing), key=sum)
        kept -= operation.kept
        if not accumulates:
            gradients += operation.gradient
    gradients_worst, kept_worst, passing_worst = (math.ceil(part) for part in worst)
    return gradients_worst, kept_worst, passing_worst
