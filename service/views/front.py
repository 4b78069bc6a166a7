"""A job's memory-accuracy front, as users read it."""

from __future__ import annotations

from collections.abc import Sequence

from search.space.lite_residual_sizes import method_of
from service.contract.requests import JobSettings, MethodChoice
from service.feasibility import Priced, job_spaces, largest, smallest
from service.record.db.models import Job, Trial
from service.views.results import EndView, FrontPoint, FrontView
from tinytl.accounting.planner import plans, step_time
from tinytl.description.method import Method
from tinytl.description.plan import Plan


def front_view(job: Job, trials: Sequence[Trial], *, num_classes: int) -> FrontView:
    """The front of a job whose trials on it are these, by rising memory."""
    settings, method = JobSettings.recorded(job.settings), MethodChoice(job.method).method
    limit_bytes = job.memory_limit_bytes
    spaces = job_spaces(job, num_classes)
    least = min((smallest(space, method, num_classes) for space in spaces), key=_peak)
    most = max((largest(space, method, num_classes, limit_bytes) for space in spaces), key=_peak)
    return FrontView(
        limit_bytes=limit_bytes,
        mac_limit=settings.mac_limit,
        smallest=_end(least),
        largest=_end(most),
        points=[
            _point(trial, method, is_chosen=_is_chosen(trial, trials, job)) for trial in trials
        ],
    )


def _peak(priced: Priced) -> int:
    return priced.peak_bytes


def _end(priced: Priced) -> EndView:
    return EndView(
        peak_bytes=priced.peak_bytes, macs=priced.macs, resolution=priced.candidate.resolution
    )


def _point(trial: Trial, method: Method, *, is_chosen: bool) -> FrontPoint:
    """method: that the job's supernet is adapted with."""
    candidate = trial.candidate
    own_method = method_of(method, candidate["lite_residual"])
    described = trial.lean_plan or candidate["plan"]
    plan = Plan.from_dict(described)
    fastest_time = min(step_time(other) for other in plans(plan.batch_size))
    return FrontPoint(
        trial=trial.number,
        peak_bytes=trial.lean_peak_bytes,
        plan=described,
        slowdown=round(step_time(plan) / fastest_time, 3),
        macs=trial.macs,
        resolution=candidate["resolution"],
        method=own_method,
        lite_residual=candidate["lite_residual"] if own_method.uses_lite_residual else None,
        subnet=candidate["subnet"],
        validation_accuracy=trial.accuracy,
        standard_error=trial.standard_error,
        is_chosen=is_chosen,
    )


def _is_chosen(trial: Trial, front: Sequence[Trial], job: Job) -> bool:
    """The last one is; an earlier version may have chosen another of its accuracy."""
    if trial is not front[-1]:
        return False
    return job.result is None or all(
        job.result[name] == trial.candidate[name] for name in ("subnet", "resolution")
    )
