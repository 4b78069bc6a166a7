"""The begin of the adapt stage where no supernet is named: the data chooses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from search.adaptation.probe import Probe, probe
from search.space.candidates import Candidate, SearchSpace
from search.space.lite_residual_sizes import method_of
from search.space.pricing import fastest_fit, macs_of, network_of, price
from search.statistics.binomial import standard_error
from service.contract.status import JsonObject
from service.record import claims
from service.settings import AUTO_SUPERNET
from service.work.job.job_run import JobRun
from service.work.job.progress import Stage
from tinytl.description.config import LiteResidualSize
from tinytl.training.data import ImageStore

_LOOK_RESOLUTION = 96
"""A supernet is looked at as near to this as its candidates within the limits come."""

_EPOCHS, _MORE_EPOCHS = 1, 4
_CLOSE = 0.1
"""Of accuracies, after the first look."""


@dataclass(frozen=True, kw_only=True)
class _Look:
    supernet: str
    candidate: Candidate
    epochs: int
    found: Probe

    def described(self) -> JsonObject:
        return {
            "supernet": self.supernet,
            "resolution": self.found.resolution,
            "epochs": self.epochs,
            "accuracy": self.found.accuracy,
            "standard_error": standard_error(self.found.accuracy, len(self.found.correct)),
        }


def choose_supernet(run: JobRun, store: ImageStore) -> None:
    """Take the supernet that tells the data's classes apart best after a short training, of the
    largest subnets within the limits; and write down what was looked at.

    Those that come close to the best are trained a little longer: what lite residual modules make
    of images unlike those that a supernet comes from does not show at once. It follows from data,
    seed and limits alone. Test images are not looked at.
    """
    job = run.job
    if job.supernet != AUTO_SUPERNET or job.chosen_supernet is not None:
        return
    run.progress.report(Stage.ADAPT, 0, 1)
    looks: list[_Look] = []
    for number, space in enumerate(run.spaces, start=1):
        looks += [
            _look(run, store, space.supernet.id, candidate, epochs=_EPOCHS)
            for candidate in _candidates(run, space)
        ]
        run.progress.report(Stage.ADAPT, number * run.workload.looked, len(run.spaces))
    rivals = _rivals(looks)
    if len(rivals) > 1:
        rivals = [
            _look(run, store, look.supernet, look.candidate, epochs=_MORE_EPOCHS)
            for look in rivals
        ]
        looks += rivals
    chosen = max(rivals, key=lambda look: look.found.accuracy).supernet
    probes = [look.described() for look in looks]
    claims.choose_supernet(run.database, run.claim, chosen, probes)
    job.chosen_supernet, job.supernet_probes = chosen, probes
    run.log(f"supernet {chosen} is chosen")
    run.progress.replan(run.workload.stages)


def _look(
    run: JobRun, store: ImageStore, name: str, candidate: Candidate, *, epochs: int
) -> _Look:
    found = probe(
        run.load_supernet(name),
        candidate,
        store,
        method=run.method,
        settings=replace(run.train_settings(), epochs=epochs, refit=False),
        should_stop=run.should_stop,
    )
    run.log(
        f"{name} at {candidate.resolution} px tells {found.accuracy:.1%} of {len(found.correct)} "
        f"images after {epochs} epoch{'s' * (epochs > 1)} of "
        f"{method_of(run.method, candidate.lite_residual)}"
    )
    return _Look(supernet=name, candidate=candidate, epochs=epochs, found=found)


def _rivals(looks: Sequence[_Look]) -> list[_Look]:
    """The best look at each supernet, where that is close to the best of all."""
    best = {look.supernet: look for look in sorted(looks, key=lambda look: look.found.accuracy)}
    most = max(look.found.accuracy for look in looks)
    return [look for look in best.values() if look.found.accuracy >= most - _CLOSE]


def _candidates(run: JobRun, space: SearchSpace) -> list[Candidate]:
    """The largest uniform subnets within the limits: without lite residual modules, and with, each
    where that is a choice; of one subnet, only with, as that trains what biases do, and more."""
    sizes = space.lite_residual_sizes
    kinds = [[size for size in sizes if (size is None) is without] for without in (True, False)]
    for resolution in sorted(space.resolutions, key=lambda side: abs(side - _LOOK_RESOLUTION)):
        largest = [_largest_within(run, space, resolution, kind) for kind in kinds]
        by_subnet = {found.subnet: found for found in largest if found is not None}
        if by_subnet:
            return list(by_subnet.values())
    return []


def _largest_within(
    run: JobRun,
    space: SearchSpace,
    resolution: int,
    sizes: Sequence[LiteResidualSize | None],
) -> Candidate | None:
    """Of the subnets that fit with any of these sizes, the one of most multiply-accumulates, with
    the largest that fits."""
    num_classes = len(run.dataset.classes)
    mac_limit, bounds = run.options.mac_limit, run.options.bounds

    def macs(candidate: Candidate) -> int:
        return macs_of(space, candidate, run.method, num_classes)

    def is_within_bounds(candidate: Candidate) -> bool:
        network = network_of(space.supernet, candidate, run.method, num_classes)
        method = method_of(run.method, candidate.lite_residual)
        return not bounds.excess_bytes(network, method, candidate.resolution)

    def price_bytes(planned: Candidate) -> int:
        return price(space, planned, run.method, num_classes).total_bytes

    uniform = [
        space.candidate(subnet, resolution, size)
        for subnet in space.supernet.uniform_subnets
        for size in sizes
    ]
    for candidate in sorted(uniform, key=macs, reverse=True):
        within = (mac_limit is None or macs(candidate) <= mac_limit) and (
            not bounds or is_within_bounds(candidate)
        )
        if within and fastest_fit(candidate, price_bytes, run.job.memory_limit_bytes):
            return candidate
    return None
