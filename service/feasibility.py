"""Whether a job can be done at all, answered before it is queued; and between which ends its
candidates lie. No torch: prices are plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search.errors import SearchError
from search.lite_residual_sizes import SIZES
from search.pricing import macs_of, price, smallest_feasible, with_plans
from search.registry import bundled_supernets, list_supernets, parse_supernet
from search.space import Candidate, SearchSpace
from service.errors import InfeasibleLimitError, InputError
from service.schemas import JobRequest, JobSettings
from service.settings import AUTO_SUPERNET, Settings
from tinytl.config import LiteResidualSize
from tinytl.errors import TinyTLError
from tinytl.trainable import Method
from tinytl.units import format_bytes, format_count


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A candidate with a lean plan, and what it takes."""

    candidate: Candidate
    peak_bytes: int
    macs: int


def search_space(supernet: str, settings: JobSettings, method: Method) -> SearchSpace:
    """The candidates of a job. Raises InputError where its settings don't make sense."""
    try:
        return SearchSpace(
            supernet=parse_supernet(supernet),
            resolutions=settings.resolutions,
            lite_residual_sizes=SIZES if method.uses_lite_residual else (LiteResidualSize(),),
            batch_size=settings.batch_size,
        )
    except (SearchError, TinyTLError) as error:
        raise InputError(str(error)) from error


def smallest(
    space: SearchSpace, method: Method, num_classes: int, mac_limit: int | None = None
) -> Priced:
    """The candidate of the least memory: of those within mac_limit, or else nearest to it."""
    candidate, peak_bytes = smallest_feasible(space, method, num_classes, mac_limit)
    macs = macs_of(space, candidate, method, num_classes)
    return Priced(candidate=candidate, peak_bytes=peak_bytes, macs=macs)


def largest(space: SearchSpace, method: Method, num_classes: int, limit_bytes: int) -> Priced:
    """The largest subnet with the largest lite residual modules, at the largest resolution."""
    return max(
        _of_every_size(space.largest(), space, method, num_classes, limit_bytes),
        key=lambda priced: priced.macs,
    )


@lru_cache(maxsize=64)
def _of_every_size(
    candidate: Candidate, space: SearchSpace, method: Method, num_classes: int, limit_bytes: int
) -> tuple[Priced, ...]:
    """The candidate with lite residual modules of every size, each with a lean plan."""
    of_sizes = (
        space.candidate(candidate.subnet, candidate.resolution, size)
        for size in space.lite_residual_sizes
    )
    return tuple(_leanest(one, space, method, num_classes, limit_bytes) for one in of_sizes)


def _leanest(
    candidate: Candidate, space: SearchSpace, method: Method, num_classes: int, limit_bytes: int
) -> Priced:
    """With the plan of least memory, which rounds trained weights only where it has to."""
    priced = [
        (price(space, planned, method, num_classes).total_bytes, planned)
        for planned in with_plans(candidate)
        if planned.plan.optimizer_bits == 8
    ]
    unrounded = [pair for pair in priced if pair[1].plan.trained_bits == 32]
    peak_bytes, planned = min(unrounded, key=lambda pair: pair[0])
    if peak_bytes > limit_bytes:
        peak_bytes, planned = min(priced, key=lambda pair: pair[0])
    macs = macs_of(space, candidate, method, num_classes)
    return Priced(candidate=planned, peak_bytes=peak_bytes, macs=macs)


def with_supernet(request: JobRequest, settings: Settings, *, num_classes: int) -> JobRequest:
    """The request with a supernet that is named, where it asks for "auto"."""
    if request.supernet != AUTO_SUPERNET:
        return request
    name = settings.supernet
    if name == AUTO_SUPERNET:
        narrowest, *wider = bundled_supernets()
        name = narrowest.id
        for spec in wider:
            if _is_all_feasible(spec.id, request, num_classes):
                name = spec.id
    return request.model_copy(update={"supernet": name})


def _is_all_feasible(supernet: str, request: JobRequest, num_classes: int) -> bool:
    """Whether the largest candidate is within the limits, at its leanest."""
    space = search_space(supernet, request.settings, request.method)
    top = largest(space, request.method, num_classes, request.memory_limit)
    mac_limit = request.settings.mac_limit
    return top.peak_bytes <= request.memory_limit and (mac_limit is None or top.macs <= mac_limit)


def check_feasible(request: JobRequest, *, num_classes: int) -> None:
    """Raise InfeasibleLimitError where not even the smallest candidate is within the limits."""
    mac_limit = request.settings.mac_limit
    space = search_space(request.supernet, request.settings, request.method)
    least = smallest(space, request.method, num_classes, mac_limit)
    too_many = mac_limit is not None and least.macs > mac_limit
    if too_many or least.peak_bytes > request.memory_limit:
        raise _infeasible(request, least)


def _infeasible(request: JobRequest, least: Priced) -> InfeasibleLimitError:
    """What is too small, and what the smallest candidate needs."""
    limit_bytes, mac_limit = request.memory_limit, request.settings.mac_limit
    needed_bytes = least.peak_bytes if least.peak_bytes > limit_bytes else None
    needed_macs = least.macs if mac_limit is not None and least.macs > mac_limit else None
    too_small = []
    if needed_bytes is not None:
        too_small.append(
            f"memory limit {format_bytes(limit_bytes)} ({limit_bytes} bytes) is too small: the "
            f"smallest feasible one is {format_bytes(needed_bytes)} ({needed_bytes} bytes)"
        )
    if needed_macs is not None and mac_limit is not None:
        too_small.append(
            f"mac_limit {format_count(mac_limit)} ({mac_limit}) is too small: the smallest "
            f"feasible one is {format_count(needed_macs)} ({needed_macs})"
        )
    return InfeasibleLimitError(
        f"{', and '.join(too_small)}. With method {request.method.value} and supernet "
        f"{request.supernet} the smallest candidate is of resolution "
        f"{least.candidate.resolution}, takes {format_count(least.macs)} multiply-accumulates an "
        f"image and, trained with {least.candidate.plan.describe()}, "
        f"{format_bytes(least.peak_bytes)}",
        smallest_feasible_bytes=needed_bytes,
        smallest_feasible_macs=needed_macs,
    )


def check_known_supernet(name: str, settings: Settings) -> None:
    """Over the network a supernet is named, not pointed at: no path on this machine is read."""
    if name == AUTO_SUPERNET:
        return
    known = [info.id for info in list_supernets(settings.supernet_cache_dir.expanduser())]
    if name not in known:
        raise InputError(
            f"unknown supernet {name!r}; it must be {AUTO_SUPERNET!r} or one of {known}"
        )
