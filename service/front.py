"""A job's memory-accuracy front, as users read it."""

from __future__ import annotations

from collections.abc import Sequence

from service.feasibility import Priced, largest, search_space, smallest
from service.record.models import Job, Trial
from service.results import EndView, FrontPoint, FrontView
from service.schemas import JobSettings
from tinytl.plan import Plan
from tinytl.planner import plans, step_time
from tinytl.trainable import Method


def front_view(job: Job, trials: Sequence[Trial], *, num_classes: int) -> FrontView:
    """The front of a job whose trials on it are these, by rising memory."""
    settings, method = JobSettings.model_validate(job.settings), Method(job.method)
    space = search_space(job.supernet, settings, method)
    limit_bytes = job.memory_limit_bytes
    return FrontView(
        limit_bytes=limit_bytes,
        mac_limit=settings.mac_limit,
        smallest=_end(smallest(space, method, num_classes)),
        largest=_end(largest(space, method, num_classes, limit_bytes)),
        points=[_point(trial, is_chosen=_is_chosen(trial, trials, job)) for trial in trials],
    )


def _end(priced: Priced) -> EndView:
    return EndView(
        peak_bytes=priced.peak_bytes, macs=priced.macs, resolution=priced.candidate.resolution
    )


def _point(trial: Trial, *, is_chosen: bool) -> FrontPoint:
    candidate = trial.candidate
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
        lite_residual=candidate["lite_residual"],
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
