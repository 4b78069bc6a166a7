"""Peak training bytes of candidates in plain Python: no module built, no torch imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

from search.architecture import SupernetSpec
from search.space import Candidate, SearchSpace
from tinytl.config import NetworkConfig, with_lite_residuals
from tinytl.memory import PeakMemory, peak_memory
from tinytl.plan import Plan
from tinytl.trainable import Method

Price = Callable[[Candidate], int]
"""Predicted peak training bytes of a candidate with its plan."""


def network_of(
    spec: SupernetSpec, candidate: Candidate, method: Method, num_classes: int
) -> NetworkConfig:
    """The network that a candidate stands for, with lite residuals where the method has them."""
    network = spec.network_config(candidate.subnet, num_classes)
    if method.uses_lite_residual:
        return with_lite_residuals(network, candidate.lite_residual)
    return network


def price(
    space: SearchSpace, candidate: Candidate, method: Method, num_classes: int
) -> PeakMemory:
    """Predicted peak training bytes of a candidate with its plan.

    Images are stored at the space's largest resolution.
    """
    return peak_memory(
        network_of(space.supernet, candidate, method, num_classes),
        method,
        candidate.plan,
        candidate.resolution,
        image_size=space.resolutions[-1],
    )


def with_plans(candidate: Candidate) -> Iterator[Candidate]:
    """The candidate with each plan worth trying, from the fastest to the slowest."""
    batch_size = candidate.plan.batch_size
    passes = range(1, batch_size + 1)
    for size in dict.fromkeys(-(-batch_size // count) for count in passes):
        plan = Plan(batch_size=batch_size, micro_batch_sizes=(size,))
        yield replace(candidate, plan=plan)


def fastest_fit(
    candidate: Candidate, price_bytes: Price, limit_bytes: int
) -> tuple[Candidate, int] | None:
    """The candidate with the fastest plan that fits the limit, and its price; None if none."""
    for planned in with_plans(candidate):
        peak_bytes = price_bytes(planned)
        if peak_bytes <= limit_bytes:
            return planned, peak_bytes
    return None


@lru_cache(maxsize=64)
def smallest_feasible(
    space: SearchSpace, method: Method, num_classes: int
) -> tuple[Candidate, int]:
    """The candidate of least predicted peak bytes in the space, and those bytes."""
    return cheapest(
        space,
        lambda candidate: price(space, candidate, method, num_classes).total_bytes,
    )


def cheapest(space: SearchSpace, price_bytes: Price) -> tuple[Candidate, int]:
    """The candidate of least price, with any plan.

    Larger blocks mostly take more, but not always: torch convolves small maps of a single image
    by other code, which needs more room. So the smallest subnet is where the descent starts.
    """
    starts = (
        planned
        for resolution in space.resolutions
        for size in space.lite_residual_sizes
        for planned in with_plans(space.candidate(space.supernet.smallest, resolution, size))
    )
    best_bytes, best = min(
        ((price_bytes(candidate), candidate) for candidate in starts), key=lambda pair: pair[0]
    )
    improved = True
    while improved:
        improved = False
        for neighbour in _neighbours(space, best):
            peak_bytes = price_bytes(neighbour)
            if peak_bytes < best_bytes:
                best, best_bytes, improved = neighbour, peak_bytes, True
                break
    return best, best_bytes


def _neighbours(space: SearchSpace, candidate: Candidate) -> Iterator[Candidate]:
    """Candidates with the same plan that differ in one searched parameter."""
    parameters = space.encode(candidate)
    for name, values in space.choices().items():
        for value in values:
            if value != parameters[name]:
                neighbour = space.decode({**parameters, name: value})
                if neighbour != candidate:
                    yield neighbour
