"""Routes of jobs: made, listed, looked at, deleted."""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from service.api.deps import MAX_NUMBER, BlobsDep, DatabaseDep, JobId, OwnerDep, SettingsDep
from service.api.document.examples import ATTEMPT, FRONT, JOB, JOB_REQUEST, TRIAL, WEBHOOK
from service.api.document.openapi import answers, problems
from service.api.http.pages import Cursor, Limit, next_link, read_cursor
from service.api.http.routes import ShortBodyRoute
from service.api.routes.checkpoint import find_content, send_bundle
from service.api.routes.views import as_json, as_json_array, job_view
from service.contract.devices import with_device
from service.contract.requests import JobChange, JobRequest, MethodChoice
from service.contract.status import Status
from service.datasets.fit import with_fit
from service.datasets.store import get_dataset
from service.errors import NotFoundError
from service.feasibility import check_feasible, check_known_supernet, with_supernet
from service.record import jobs as record
from service.record.files.artifacts import remove_leftovers
from service.record.fronts import list_front
from service.record.jobs import Idempotency, Position
from service.record.webhooks import find_webhook
from service.views.front import front_view
from service.views.results import FrontView
from service.views.schemas import AttemptView, JobView, TrialView, WebhookView
from service.webhooks.addresses import check_webhook

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ShortBodyRoute)

_NOT_FOUND = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="A name for this request: sent again, it makes no second job.",
    ),
]


@router.post(
    "",
    summary="Create a job",
    status_code=HTTPStatus.ACCEPTED,
    responses=answers(
        JOB, *_NOT_FOUND, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, status=HTTPStatus.ACCEPTED
    ),
    openapi_extra={"requestBody": {"content": {"application/json": {"example": JOB_REQUEST}}}},
)
def create_job(
    request: JobRequest,
    response: Response,
    settings: SettingsDep,
    database: DatabaseDep,
    owner: OwnerDep,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Queue a job. A limit that nothing can meet is refused with the smallest that can be met
    (`smallest_feasible_bytes`).

    With an Idempotency-Key the same request may be sent again, at once or within a day: it
    answers with the job that it made, and `Idempotent-Replayed: true`.
    """
    idempotency = _idempotency(request, owner, idempotency_key)
    job = record.find_repeated(database, idempotency) if idempotency else None
    is_new = False
    if job is None:
        request = with_device(request, settings)
        dataset = get_dataset(database, request.dataset)
        check_known_supernet(request.supernet, settings)
        if request.webhook is not None:
            check_webhook(request.webhook, settings)
        num_classes = len(dataset.classes)
        request = with_fit(request, dataset)
        request = with_supernet(request, settings)
        check_feasible(request, num_classes=num_classes)
        job, is_new = record.create_job(database, request, idempotency, owner=owner)
    response.headers["Location"] = f"/jobs/{job.id}"
    if is_new:
        return JobView.of(job)
    response.headers["Idempotent-Replayed"] = "true"
    return job_view(record.find_job(database, job.id))


def _idempotency(request: JobRequest, owner: str, key: str | None) -> Idempotency | None:
    """By what the request means: 24MB is 24000000, and a default may be written out."""
    if key is None:
        return None
    meaning = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    sha256 = hashlib.sha256(meaning.encode()).hexdigest()
    return Idempotency(owner=owner, key=key, request_sha256=sha256)


@router.get(
    "",
    summary="List jobs",
    response_model=list[JobView],
    responses=answers([JOB], HTTPStatus.UNPROCESSABLE_ENTITY),
)
def list_jobs(
    database: DatabaseDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    status: Annotated[Status | None, Query(description="Only jobs that stand so.")] = None,
    dataset: Annotated[
        str | None, Query(max_length=64, pattern="^[!-~]+$", description="Only jobs over it.")
    ] = None,
) -> Response:
    """Newest first. Where there are more, the Link header leads to the next page."""
    after = None
    if cursor is not None:
        created_at, job_id = read_cursor(cursor)
        after = Position(created_at=created_at, job_id=job_id)
    found = record.list_jobs(
        database, limit=limit + 1, after=after, status=status, dataset_id=dataset
    )
    page = found[:limit]
    response = as_json_array(map(job_view, page))
    if len(found) > limit:
        last, _ = page[-1]
        place = (last.created_at, last.id)
        link = next_link("/jobs", limit=limit, last=place, status=status, dataset=dataset)
        response.headers.update(link)
    return response


@router.get(
    "/{job_id}",
    summary="Look at a job",
    response_model=JobView,
    responses=answers(JOB, *_NOT_FOUND),
)
def get_job(job_id: JobId, database: DatabaseDep) -> Response:
    """How far it is, and what came out."""
    return as_json(job_view(record.find_job(database, job_id)))


@router.patch(
    "/{job_id}",
    summary="Change a job's priority",
    responses=answers(JOB, *_NOT_FOUND, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
)
def change_job(job_id: JobId, change: JobChange, database: DatabaseDep) -> JobView:
    """Of one that has begun, it counts should the job have to wait once more."""
    record.set_priority(database, job_id, change.priority)
    return job_view(record.find_job(database, job_id))


@router.delete(
    "/{job_id}",
    summary="Delete a job",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(*_NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_job(job_id: JobId, settings: SettingsDep, database: DatabaseDep) -> None:
    """With all that it left behind. A running one has to be cancelled first."""
    record.delete_job(database, job_id)
    remove_leftovers(settings, job_id)


@router.get(
    "/{job_id}/trials",
    summary="List a job's trials",
    response_model=list[TrialView],
    responses=answers([TRIAL], *_NOT_FOUND),
)
def list_trials(
    job_id: JobId,
    database: DatabaseDep,
    after: Annotated[
        int, Query(ge=-1, le=MAX_NUMBER, description="Answer with trials after this number.")
    ] = -1,
    limit: Limit = 1_000,
) -> Response:
    """The candidates scored so far, in order."""
    choice = MethodChoice(record.get_job(database, job_id).method)
    trials = record.list_trials(database, job_id, after=after, limit=limit)
    return as_json_array(TrialView.of(trial, choice) for trial in trials)


@router.get(
    "/{job_id}/front",
    summary="Look at a job's memory-accuracy front",
    response_model=FrontView,
    responses=answers(FRONT, *_NOT_FOUND),
)
def get_front(job_id: JobId, database: DatabaseDep) -> Response:
    """What accuracy the search has found from how much memory on, within the job's limits, and
    between which ends its candidates lie."""
    job = record.get_job(database, job_id)
    dataset = get_dataset(database, job.dataset_id)
    trials = list_front(database, job)
    return as_json(front_view(job, trials, num_classes=len(dataset.classes)))


@router.get(
    "/{job_id}/webhook",
    summary="Look at a job's webhook",
    responses=answers(WEBHOOK, *_NOT_FOUND),
)
def get_webhook(job_id: JobId, database: DatabaseDep) -> WebhookView:
    """Whether the job's end has been told, and why not."""
    job = record.get_job(database, job_id)
    webhook = find_webhook(database, job.id)
    if webhook is None:
        raise NotFoundError(f"job {job.id!r} was made without a webhook")
    return WebhookView.of(webhook)


@router.get(
    "/{job_id}/attempts",
    summary="List a job's attempts",
    responses=answers([ATTEMPT], *_NOT_FOUND),
)
def list_attempts(job_id: JobId, database: DatabaseDep) -> list[AttemptView]:
    """Which workers have taken the job, and how that ended."""
    return [AttemptView.of(attempt) for attempt in record.list_attempts(database, job_id)]


@router.get(
    "/{job_id}/checkpoint",
    summary="Download a finished job's bundle",
    response_class=FileResponse,
    responses={
        HTTPStatus.OK: {
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
        },
        HTTPStatus.PARTIAL_CONTENT: {
            "description": "The part that Range asks for",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(*_NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    },
)
async def get_checkpoint(
    request: Request,
    job_id: JobId,
    settings: SettingsDep,
    database: DatabaseDep,
    blobs: BlobsDep,
) -> Response:
    """A zip that `tinytl.load` reads. Its entity tag is its SHA-256; a download that was cut off
    goes on with Range and If-Range."""
    job, bundle = await run_in_threadpool(record.find_job, database, job_id)
    if bundle is None or job.status is not Status.SUCCEEDED:
        raise NotFoundError(
            f"job {job.id!r} is {job.status.value} and has no checkpoint; wait until it has "
            f"succeeded"
        )
    content = await run_in_threadpool(find_content, bundle, settings, blobs)
    return send_bundle(
        request,
        content,
        num_bytes=bundle.num_bytes,
        sha256=bundle.sha256 or "",
        filename=f"tinyfit-{job.id[:8]}.zip",
    )
