"""Which plan to train with: a menu of plans from fast to slow, and the first that fits.

No torch here. The menu and its order are the same for every network; memory is what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from tinytl.accounting.memory import PeakMemory, peak_memory
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import OptimizerBits, Plan, Stretch, TrainedBits
from tinytl.errors import InfeasibleError
from tinytl.units import format_bytes

REASONABLE_SLOWDOWN = 2.5
"""leanest_plan looks among plans whose estimated step is at most this much slower."""

_NUM_STAGES = 5
_LEAN_STARTS = ((1, 2), (2, 3), (2, 4), (3, 4))
"""Where the second and the third of three stretches begin."""
_PRECISIONS: tuple[tuple[OptimizerBits, TrainedBits], ...] = ((32, 32), (8, 32), (8, 16))

# Time in units of an image's way forward and back in a whole batch, fitted to the steps of
# ProxylessNAS-Mobile at 224 pixels in batches of 8, on one thread.
_IMAGE_TIME = 0.87
_FORWARD_TIME = (0.06, 0.075, 0.04, 0.11, 0.1)
"""Of an image's forward through a stage."""
_PASS_TIME = (0.0, 0.04, 0.18, 0.48, 0.32)
"""What a micro-batch's pass through a stage takes however small it is: late stages' weights."""
_MOMENTS_TIME = 0.95
"""Of Adam with moments in 8 bits, beyond 32."""
_ROUNDING_TIME = 0.18
"""Of an update of 16-bit weights, beyond 32."""


def step_time(plan: Plan) -> float:
    """Estimate of a step's time, to compare plans with: it knows nothing of the network."""
    time = _IMAGE_TIME * plan.batch_size
    ends = [*(stretch.from_stage for stretch in plan.stretches[1:]), _NUM_STAGES]
    for stretch, end in zip(plan.stretches, ends, strict=True):
        num_passes = -(-plan.batch_size // stretch.micro_batch_size)
        pass_time = num_passes * sum(_PASS_TIME[stretch.from_stage : end])
        time += pass_time
        if stretch.recomputes:
            time += plan.batch_size * sum(_FORWARD_TIME[stretch.from_stage : end]) + pass_time / 3
    return (
        time
        + _MOMENTS_TIME * (plan.optimizer_bits == 8)
        + _ROUNDING_TIME * (plan.trained_bits == 16)
    )


@lru_cache
def plans(batch_size: int) -> tuple[Plan, ...]:
    """The plans worth trying, fastest first; those that round trained weights come last."""
    menu = [
        Plan(
            batch_size=batch_size,
            stretches=stretches,
            optimizer_bits=optimizer_bits,
            trained_bits=trained_bits,
        )
        for stretches in dict.fromkeys(_splits(batch_size))
        for optimizer_bits, trained_bits in _PRECISIONS
    ]
    return tuple(sorted(menu, key=lambda plan: (-plan.trained_bits, step_time(plan))))


def _splits(batch_size: int) -> Iterator[tuple[Stretch, ...]]:
    """The menu's ways to pass a batch through the stages.

    The whole network alike; the first stage apart; early stages in few images and late ones in
    more; at the lean end three stretches, of which the first two run forward again.
    """
    powers = [size for i in range(batch_size.bit_length()) if (size := 2**i) < batch_size]
    few = [size for size in (1, 2, 4) if size < batch_size]
    for size in [*powers, batch_size]:
        yield (Stretch(micro_batch_size=size),)
    for early, late, stage, recomputes in product(
        few, [*few, batch_size], range(1, _NUM_STAGES), (False, True)
    ):
        if early < late and (stage > 1 or (early, late) == (1, batch_size)):
            yield (
                Stretch(micro_batch_size=early, recomputes=recomputes),
                Stretch(from_stage=stage, micro_batch_size=late),
            )
    for middle, (second, third) in product(few[1:], _LEAN_STARTS):
        yield (
            Stretch(micro_batch_size=1, recomputes=True),
            Stretch(from_stage=second, micro_batch_size=middle, recomputes=True),
            Stretch(from_stage=third, micro_batch_size=batch_size),
        )


def fastest_plan(
    network: NetworkConfig,
    method: Method,
    resolution: int,
    limit_bytes: int,
    *,
    batch_size: int,
    image_size: int | None = None,
    frozen_bits: int = 8,
) -> tuple[Plan, PeakMemory]:
    """The menu's first plan whose predicted peak is within the limit, and that peak.

    image_size, frozen_bits: as in peak_memory. Raises InfeasibleError where there is none.
    """
    smallest_bytes = 0
    for plan in _plans_of(network, batch_size):
        peak = peak_memory(
            network, method, plan, resolution, image_size=image_size, frozen_bits=frozen_bits
        )
        if peak.total_bytes <= limit_bytes:
            return plan, peak
        smallest_bytes = min(smallest_bytes or peak.total_bytes, peak.total_bytes)
    raise InfeasibleError(
        f"no plan fits {format_bytes(limit_bytes)} ({limit_bytes} bytes): the smallest feasible "
        f"limit is {format_bytes(smallest_bytes)} ({smallest_bytes} bytes)",
        smallest_feasible_bytes=smallest_bytes,
    )


def leanest_plan(
    network: NetworkConfig,
    method: Method,
    resolution: int,
    *,
    batch_size: int,
    image_size: int | None = None,
    frozen_bits: int = 8,
) -> tuple[Plan, PeakMemory]:
    """The plan of least predicted peak among those of a reasonable step time, and that peak."""
    menu = _plans_of(network, batch_size)
    slowest = REASONABLE_SLOWDOWN * step_time(menu[0])
    priced = (
        (
            plan,
            peak_memory(
                network, method, plan, resolution, image_size=image_size, frozen_bits=frozen_bits
            ),
        )
        for plan in menu
        if step_time(plan) <= slowest
    )
    return min(priced, key=lambda pair: pair[1].total_bytes)


def _plans_of(network: NetworkConfig, batch_size: int) -> list[Plan]:
    """The menu, for networks of few stages too."""
    last = network.part_stages[-1]
    return [plan for plan in plans(batch_size) if plan.stretches[-1].from_stage <= last]
