"""Whether a job can be done at all, answered before it is queued. No torch: prices are plain
Python."""

from __future__ import annotations

from search.errors import SearchError
from search.pricing import smallest_feasible
from search.registry import list_supernets, parse_supernet
from search.space import SearchSpace
from service.errors import InfeasibleLimitError, InputError
from service.schemas import JobRequest, JobSettings
from service.settings import Settings
from tinytl.errors import TinyTLError
from tinytl.units import format_bytes


def search_space(supernet: str, settings: JobSettings) -> SearchSpace:
    """The candidates of a job. Raises InputError where its settings don't make sense."""
    try:
        return SearchSpace(
            supernet=parse_supernet(supernet),
            resolutions=settings.resolutions,
            batch_size=settings.batch_size,
        )
    except (SearchError, TinyTLError) as error:
        raise InputError(str(error)) from error


def check_feasible(request: JobRequest, *, num_classes: int) -> None:
    """Raise InfeasibleLimitError where not even the smallest candidate fits the limit."""
    space = search_space(request.supernet, request.settings)
    smallest, smallest_bytes = smallest_feasible(space, request.method, num_classes)
    if request.memory_limit < smallest_bytes:
        raise InfeasibleLimitError(
            f"memory limit {format_bytes(request.memory_limit)} ({request.memory_limit} bytes) is "
            f"too small: the smallest feasible one is {format_bytes(smallest_bytes)} "
            f"({smallest_bytes} bytes) with method {request.method.value}, supernet "
            f"{request.supernet}, batch size {request.settings.batch_size} and resolution "
            f"{smallest.resolution}",
            smallest_feasible_bytes=smallest_bytes,
        )


def check_known_supernet(name: str, settings: Settings) -> None:
    """Over the network a supernet is named, not pointed at: no path on this machine is read."""
    known = [info.id for info in list_supernets(settings.supernet_cache_dir.expanduser())]
    if name not in known:
        raise InputError(f"unknown supernet {name!r}; it must be one of {known}")
