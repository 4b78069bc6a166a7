"""Peak training bytes of candidates in plain Python: no module built, no torch imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter

from search.space.architecture import Subnet, SupernetSpec
from search.space.bounds import NO_BOUNDS, Bounds
from search.space.candidates import Candidate, SearchSpace
from search.space.lite_residual_sizes import method_of
from tinytl.accounting.compute import multiply_accumulates
from tinytl.accounting.memory import PeakMemory, peak_memory
from tinytl.accounting.model_size import model_bytes
from tinytl.accounting.planner import plans
from tinytl.description.config import LiteResidualSize, NetworkConfig, with_lite_residuals
from tinytl.description.method import Method
from tinytl.native.pricing.process import ProcessMemory, process_memory

Price = Callable[[Candidate], int]
"""Predicted peak training bytes of a candidate with its plan."""

_OUTWEIGHS = 1 << 30
"""A byte over the bounds counts for so many of training's peak: they come first on the way
down."""

Macs = Callable[[Candidate], int]
"""Multiply-accumulates of one image's forward pass."""


def network_of(
    spec: SupernetSpec, candidate: Candidate, method: Method, num_classes: int
) -> NetworkConfig:
    """The network that a candidate stands for, with lite residuals where the method has them."""
    size = candidate.lite_residual if method.uses_lite_residual else None
    return _network(spec, candidate.subnet, size, num_classes)


@lru_cache(maxsize=16)
def _network(
    spec: SupernetSpec, subnet: Subnet, size: LiteResidualSize | None, num_classes: int
) -> NetworkConfig:
    """Kept for a while, as a candidate is priced with one plan after the other."""
    network = spec.network_config(subnet, num_classes)
    return network if size is None else with_lite_residuals(network, size)


def price(
    space: SearchSpace, candidate: Candidate, method: Method, num_classes: int
) -> ProcessMemory | PeakMemory:
    """Predicted peak training bytes of a candidate with its plan: those that a limit binds.

    They are those of the device trainer's whole process, or of the torch engine's allocator
    (torch_price): see SearchSpace. Images are stored at the space's stored_size.
    """
    if not space.prices_process(method):
        return torch_price(space, candidate, method, num_classes)
    return process_memory(
        network_of(space.supernet, candidate, method, num_classes),
        method_of(method, candidate.lite_residual),
        candidate.plan,
        candidate.resolution,
        image_size=space.stored_size,
    )


def torch_price(
    space: SearchSpace, candidate: Candidate, method: Method, num_classes: int
) -> PeakMemory:
    """Predicted peak of torch's allocator where the torch engine trains the candidate."""
    return peak_memory(
        network_of(space.supernet, candidate, method, num_classes),
        method_of(method, candidate.lite_residual),
        candidate.plan,
        candidate.resolution,
        image_size=space.stored_size,
    )


def with_plans(candidate: Candidate) -> Iterator[Candidate]:
    """The candidate with each plan worth trying, from the fastest to the slowest."""
    for plan in plans(candidate.plan.batch_size):
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


def macs_of(space: SearchSpace, candidate: Candidate, method: Method, num_classes: int) -> int:
    """Multiply-accumulates of one image's forward pass."""
    network = network_of(space.supernet, candidate, method, num_classes)
    return multiply_accumulates(network, candidate.resolution)


def least_network(space: SearchSpace, method: Method, num_classes: int) -> NetworkConfig:
    """The network of the smallest values, which is the one that classifies in the least memory,
    too, at the smallest resolution: the smallest subnet with the least of lite residual
    modules."""
    smallest = (
        space.candidate(space.supernet.smallest, space.resolutions[0], size)
        for size in space.lite_residual_sizes
    )
    networks = [network_of(space.supernet, one, method, num_classes) for one in smallest]
    return min(networks, key=lambda network: model_bytes(network, method))


@lru_cache(maxsize=64)
def smallest_feasible(
    space: SearchSpace,
    method: Method,
    num_classes: int,
    mac_limit: int | None = None,
    bounds: Bounds = NO_BOUNDS,
) -> tuple[Candidate, int]:
    """The candidate of least predicted peak bytes in the space, and those bytes: of those within
    mac_limit, or else nearest to it. Of those within the bounds, which least_network must be
    in."""

    def price_bytes(candidate: Candidate) -> int:
        found = price(space, candidate, method, num_classes).total_bytes
        if not bounds:
            return found
        network = network_of(space.supernet, candidate, method, num_classes)
        excess_bytes = bounds.excess_bytes(network, method, candidate.resolution)
        return found + excess_bytes * _OUTWEIGHS

    return cheapest(
        space,
        price_bytes,
        lambda candidate: macs_of(space, candidate, method, num_classes),
        mac_limit,
    )


def cheapest(
    space: SearchSpace, price_bytes: Price, macs: Macs, mac_limit: int | None
) -> tuple[Candidate, int]:
    """The candidate of least price, with any plan: of those within mac_limit, or else nearest to
    it.

    Larger blocks mostly take more, but not always: torch convolves small maps of a single image
    by other code, which needs more room. So the smallest subnet is where the descent starts.
    """
    starts = (
        planned
        for resolution in space.resolutions
        for size in space.lite_residual_sizes
        for planned in _with_lean_plans(space.candidate(space.supernet.smallest, resolution, size))
    )

    def cost(candidate: Candidate) -> tuple[int, int]:
        excess = 0 if mac_limit is None else max(0, macs(candidate) - mac_limit)
        return excess, price_bytes(candidate)

    least, best = min(((cost(candidate), candidate) for candidate in starts), key=itemgetter(0))
    improved = True
    while improved:
        improved = False
        for neighbour in _neighbours(space, best):
            found = cost(neighbour)
            if found < least:
                best, least, improved = neighbour, found, True
                break
    return best, least[1]


def _with_lean_plans(candidate: Candidate) -> Iterator[Candidate]:
    """With 8-bit moments, which never take more than 32-bit ones, all else equal."""
    for planned in with_plans(candidate):
        if planned.plan.optimizer_bits == 8:
            yield planned


def _neighbours(space: SearchSpace, candidate: Candidate) -> Iterator[Candidate]:
    """Candidates that differ in one searched parameter, or in the plan."""
    parameters = space.encode(candidate)
    for name, values in space.choices().items():
        for value in values:
            if value != parameters[name]:
                other = space.decode({**parameters, name: value})
                neighbour = replace(other, plan=candidate.plan)
                if neighbour != candidate:
                    yield neighbour
    yield from _with_lean_plans(candidate)
