"""Whether a job can be done at all, answered before it is queued; and between which ends its
candidates lie. No torch: prices are plain Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from search.errors import SearchError
from search.space.bounds import NO_BOUNDS, Bounds
from search.space.candidates import Candidate, SearchSpace
from search.space.lite_residual_sizes import NONE_OR_ANY, SIZES
from search.space.pricing import (
    least_network,
    macs_of,
    price,
    smallest_feasible,
    with_plans,
)
from search.supernets.registry import bundled_supernets, list_supernets, parse_supernet
from service.contract.requests import JobRequest, JobSettings, MethodChoice
from service.errors import InfeasibleLimitError, InputError
from service.record.db.models import Job
from service.settings import AUTO_SUPERNET, Settings
from tinytl.accounting.inference_memory import process_bytes
from tinytl.accounting.model_size import model_bytes
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method, PeakMeaning
from tinytl.errors import TinyTLError
from tinytl.units import format_bytes, format_count


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A candidate with a lean plan, and what it takes."""

    candidate: Candidate
    peak_bytes: int
    macs: int


def search_space(
    supernet: str,
    settings: JobSettings,
    choice: MethodChoice,
    *,
    image_size: int | None = None,
    peak_meaning: PeakMeaning = PeakMeaning.PROCESS,
) -> SearchSpace:
    """The candidates of a job with this supernet, to be trained with choice.method. Raises
    InputError where its settings don't make sense."""
    sizes: tuple[LiteResidualSize | None, ...] = (LiteResidualSize(),)
    if choice == MethodChoice.AUTO:
        sizes = NONE_OR_ANY
    elif choice.method.uses_lite_residual:
        sizes = SIZES
    try:
        spec = parse_supernet(supernet)
        return SearchSpace(
            supernet=spec,
            resolutions=settings.resolutions or spec.resolutions,
            lite_residual_sizes=sizes,
            batch_size=settings.batch_size,
            image_size=image_size,
            peak_meaning=peak_meaning,
        )
    except (SearchError, TinyTLError) as error:
        raise InputError(str(error)) from error


def smallest(
    space: SearchSpace,
    method: Method,
    num_classes: int,
    mac_limit: int | None = None,
    bounds: Bounds = NO_BOUNDS,
) -> Priced:
    """The candidate of the least memory: of those within the limits, or else nearest to them. Some
    must be within the bounds."""
    candidate, _ = smallest_feasible(space, method, num_classes, mac_limit, bounds)
    peak_bytes = price(space, candidate, method, num_classes).total_bytes
    macs = macs_of(space, candidate, method, num_classes)
    return Priced(candidate=candidate, peak_bytes=peak_bytes, macs=macs)


def largest(space: SearchSpace, method: Method, num_classes: int, limit_bytes: int) -> Priced:
    """The largest subnet at the largest resolution, with the largest lite residual modules of the
    space."""
    return max(
        _of_every_size(space.largest(), space, method, num_classes, limit_bytes),
        key=lambda priced: priced.macs,
    )


@lru_cache(maxsize=64)
def _of_every_size(
    candidate: Candidate, space: SearchSpace, method: Method, num_classes: int, limit_bytes: int
) -> tuple[Priced, ...]:
    """The candidate with lite residual modules of every size of the space, each with a lean
    plan."""
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


def with_supernet(request: JobRequest, settings: Settings) -> JobRequest:
    """The request with the installation's own supernet, if it has one, in place of "auto"."""
    if request.supernet != AUTO_SUPERNET or settings.supernet == AUTO_SUPERNET:
        return request
    return request.model_copy(update={"supernet": settings.supernet})


def candidate_spaces(
    request: JobRequest, num_classes: int, peak_meaning: PeakMeaning = PeakMeaning.PROCESS
) -> tuple[SearchSpace, ...]:
    """A space for each supernet that the job's data may choose, of which something is within the
    limits; that of the one which is named, whatever the limits. All store images alike.
    """
    if request.supernet != AUTO_SUPERNET:
        return (
            search_space(
                request.supernet, request.settings, request.method, peak_meaning=peak_meaning
            ),
        )
    spaces = [
        space
        for space in _spaces_within_bounds(request, num_classes, peak_meaning)
        if _is_within(request, _smallest(space, request, num_classes))
    ]
    image_size = max((space.resolutions[-1] for space in spaces), default=None)
    return tuple(replace(space, image_size=image_size) for space in spaces)


def job_spaces(job: Job, num_classes: int) -> tuple[SearchSpace, ...]:
    """The spaces of a job's supernets, as candidate_spaces gives them; once its data has chosen,
    that of the one chosen."""
    request = JobRequest(
        dataset=job.dataset_id,
        memory_limit=job.memory_limit_bytes,
        method=MethodChoice(job.method),
        supernet=job.supernet,
        settings=JobSettings.recorded(job.settings),
    )
    spaces = candidate_spaces(request, num_classes, job.peak_meaning)
    if job.chosen_supernet is None:
        return spaces
    chosen = tuple(space for space in spaces if space.supernet.id == job.chosen_supernet)
    return chosen or (
        search_space(
            job.chosen_supernet,
            request.settings,
            request.method,
            peak_meaning=job.peak_meaning,
        ),
    )


def check_feasible(request: JobRequest, *, num_classes: int) -> None:
    """Raise InfeasibleLimitError, with the least that is needed, where not even the smallest
    candidate of any supernet is within the limits."""
    mac_limit = request.settings.mac_limit
    spaces = _spaces_within_bounds(request, num_classes)
    if not spaces:
        raise _out_of_bounds(request, num_classes)
    found = [(space.supernet.id, _smallest(space, request, num_classes)) for space in spaces]
    supernet, least = min(
        found,
        key=lambda pair: (max(0, pair[1].macs - (mac_limit or pair[1].macs)), pair[1].peak_bytes),
    )
    if not _is_within(request, least):
        raise _infeasible(request, supernet, least)


def _asked_spaces(
    request: JobRequest, peak_meaning: PeakMeaning = PeakMeaning.PROCESS
) -> list[SearchSpace]:
    """Of the supernet that is named, or of every bundled one."""
    asked = [request.supernet]
    if request.supernet == AUTO_SUPERNET:
        asked = [spec.id for spec in bundled_supernets()]
    return [
        search_space(supernet, request.settings, request.method, peak_meaning=peak_meaning)
        for supernet in asked
    ]


def _spaces_within_bounds(
    request: JobRequest, num_classes: int, peak_meaning: PeakMeaning = PeakMeaning.PROCESS
) -> list[SearchSpace]:
    """Those with a network that is within what it may take beside its training."""
    return [
        space
        for space in _asked_spaces(request, peak_meaning)
        if not _excess_bytes(request, space, num_classes)
    ]


def _excess_bytes(request: JobRequest, space: SearchSpace, num_classes: int) -> int:
    """By how much the least network of the space is over these bounds."""
    bounds, method = request.settings.bounds, request.method.method
    if not bounds:
        return 0
    network = least_network(space, method, num_classes)
    return bounds.excess_bytes(network, method, space.resolutions[0])


def _smallest(space: SearchSpace, request: JobRequest, num_classes: int) -> Priced:
    settings = request.settings
    return smallest(
        space,
        request.method.method,
        num_classes,
        settings.mac_limit,
        settings.bounds,
    )


def _is_within(request: JobRequest, least: Priced) -> bool:
    mac_limit = request.settings.mac_limit
    return least.peak_bytes <= request.memory_limit and (
        mac_limit is None or least.macs <= mac_limit
    )


def _out_of_bounds(request: JobRequest, num_classes: int) -> InfeasibleLimitError:
    """What is too small for the least network of the supernet that comes nearest, and what it
    needs."""
    bounds, method = request.settings.bounds, request.method.method
    space = min(
        _asked_spaces(request), key=lambda space: _excess_bytes(request, space, num_classes)
    )
    network, resolution = least_network(space, method, num_classes), space.resolutions[0]
    least_model, least_inference = model_bytes(network, method), process_bytes(network, resolution)
    too_small, needed = [], {}
    if bounds.model_bytes is not None and least_model > bounds.model_bytes:
        too_small.append(_too_small("model_size_limit", bounds.model_bytes, least_model))
        needed["smallest_feasible_model_bytes"] = least_model
    if bounds.inference_bytes is not None and least_inference > bounds.inference_bytes:
        limit_bytes = bounds.inference_bytes
        too_small.append(_too_small("inference_memory_limit", limit_bytes, least_inference))
        needed["smallest_feasible_inference_bytes"] = least_inference
    return InfeasibleLimitError(
        f"{', and '.join(too_small)}, with method {request.method.value}, supernet "
        f"{space.supernet.id} and images of {resolution} pixels",
        smallest_feasible_bytes=None,
        **needed,
    )


def _too_small(name: str, limit_bytes: int, least_bytes: int) -> str:
    return (
        f"{name} {format_bytes(limit_bytes)} ({limit_bytes} bytes) is too small: the smallest "
        f"feasible one is {format_bytes(least_bytes)} ({least_bytes} bytes)"
    )


def _infeasible(request: JobRequest, supernet: str, least: Priced) -> InfeasibleLimitError:
    """What is too small, and what the smallest candidate needs."""
    limit_bytes, mac_limit = request.memory_limit, request.settings.mac_limit
    needed_bytes = least.peak_bytes if least.peak_bytes > limit_bytes else None
    needed_macs = least.macs if mac_limit is not None and least.macs > mac_limit else None
    too_small = []
    if needed_bytes is not None:
        too_small.append(_too_small("memory limit", limit_bytes, needed_bytes))
    if needed_macs is not None and mac_limit is not None:
        too_small.append(
            f"mac_limit {format_count(mac_limit)} ({mac_limit}) is too small: the smallest "
            f"feasible one is {format_count(needed_macs)} ({needed_macs})"
        )
    return InfeasibleLimitError(
        f"{', and '.join(too_small)}. With method {request.method.value} and supernet "
        f"{supernet} the smallest candidate is of resolution "
        f"{least.candidate.resolution}, takes {format_count(least.macs)} multiply-accumulates an "
        f"image and, trained with {least.candidate.plan.describe()}, "
        f"{format_bytes(least.peak_bytes)} {request.method.method.peak_meaning.describe()}",
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
