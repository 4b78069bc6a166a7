"""Routes that tell a job what to do: cancel, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from fastapi import APIRouter

from service.api.deps import DatabaseDep, JobId
from service.api.document.examples import JOB
from service.api.document.openapi import answers
from service.api.http.routes import ShortBodyRoute
from service.api.routes.views import job_view
from service.record import jobs as record
from service.views.schemas import JobView

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ShortBodyRoute)


def _action(name: str, summary: str) -> Callable[..., Callable[..., JobView]]:
    return router.post(
        f"/{{job_id}}/{name}",
        summary=summary,
        status_code=HTTPStatus.ACCEPTED,
        responses=answers(
            JOB,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            status=HTTPStatus.ACCEPTED,
        ),
    )


@_action("cancel", "Cancel a job")
def cancel_job(job_id: JobId, database: DatabaseDep) -> JobView:
    """One that runs ends within seconds; `stop_request` says so until then."""
    record.cancel_job(database, job_id)
    return job_view(record.find_job(database, job_id))


@_action("pause", "Pause a job")
def pause_job(job_id: JobId, database: DatabaseDep) -> JobView:
    """It rests until it is resumed, and keeps what is finished."""
    record.pause_job(database, job_id)
    return job_view(record.find_job(database, job_id))


@_action("resume", "Resume a job")
def resume_job(job_id: JobId, database: DatabaseDep) -> JobView:
    """A paused one goes back into the queue, and goes on from what is finished."""
    record.resume_job(database, job_id)
    return job_view(record.find_job(database, job_id))


@_action("retry", "Retry a job")
def retry_job(job_id: JobId, database: DatabaseDep) -> JobView:
    """One that failed or was cancelled is queued again, and goes on from what is finished."""
    record.retry_job(database, job_id)
    return job_view(record.find_job(database, job_id))
