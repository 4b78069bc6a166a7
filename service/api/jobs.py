"""Routes of jobs."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from service.api.bodies import ShortBodyRoute
from service.api.deps import DatabaseDep, JobDep, SettingsDep
from service.artifacts import BUNDLE, artifact_path, remove_leftovers
from service.database import Database
from service.datasets import get_dataset
from service.errors import NotFoundError
from service.feasibility import check_feasible, check_known_supernet
from service.jobs import create_job, get_artifact, list_jobs, list_trials, request_cancel
from service.models import Job, Status
from service.schemas import JobRequest, JobView, TrialView, checkpoint_view

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ShortBodyRoute)


def _view(job: Job, database: Database) -> JobView:
    bundle = None
    if job.status is Status.SUCCEEDED:
        bundle = get_artifact(database, job.id, BUNDLE)
    url = f"/jobs/{job.id}/checkpoint"
    return JobView.of(job, checkpoint_view(bundle, url) if bundle else None)


@router.post("", status_code=HTTPStatus.ACCEPTED)
def post_job(
    request: JobRequest, response: Response, settings: SettingsDep, database: DatabaseDep
) -> JobView:
    """Queue a job. A limit that nothing can meet is refused with the smallest that can be met."""
    dataset = get_dataset(database, request.dataset)
    check_known_supernet(request.supernet, settings)
    check_feasible(request, num_classes=len(dataset.classes))
    job = create_job(database, request)
    response.headers["Location"] = f"/jobs/{job.id}"
    return _view(job, database)


@router.get("")
def get_jobs(
    database: DatabaseDep, limit: Annotated[int, Query(ge=1, le=1_000)] = 100
) -> list[JobView]:
    """The newest jobs, newest first."""
    return [_view(job, database) for job in list_jobs(database, limit=limit)]


@router.get("/{job_id}")
def get_job(job: JobDep, database: DatabaseDep) -> JobView:
    """A job: how far it is, and what came out."""
    return _view(job, database)


@router.get("/{job_id}/trials")
def get_trials(job: JobDep, database: DatabaseDep) -> list[TrialView]:
    """The candidates scored so far, in order."""
    return [TrialView.of(trial) for trial in list_trials(database, job.id)]


@router.post("/{job_id}/cancel", status_code=HTTPStatus.ACCEPTED)
def post_cancel(job: JobDep, settings: SettingsDep, database: DatabaseDep) -> JobView:
    """Cancel a job; one that runs ends within seconds."""
    cancelled = request_cancel(database, job.id)
    if cancelled.status is Status.CANCELLED:
        remove_leftovers(settings, job.id)
    return _view(cancelled, database)


@router.get("/{job_id}/checkpoint", response_class=FileResponse)
def get_checkpoint(job: JobDep, settings: SettingsDep, database: DatabaseDep) -> FileResponse:
    """The finished job's bundle, a zip that `tinytl.load` reads."""
    bundle = get_artifact(database, job.id, BUNDLE)
    if bundle is None or job.status is not Status.SUCCEEDED:
        raise NotFoundError(
            f"job {job.id!r} is {job.status.value} and has no checkpoint; wait until it has "
            f"succeeded"
        )
    path = artifact_path(settings, bundle)
    if not path.is_file():
        raise NotFoundError(f"the checkpoint of job {job.id!r} is gone from {path}; run it again")
    return FileResponse(
        path,
        media_type="application/zip",
        filename=f"tinyfit-{job.id[:8]}.zip",
        headers={"ETag": f'"{bundle.sha256}"'},
    )
