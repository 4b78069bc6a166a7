"""Rows as users see them over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Response
from pydantic import BaseModel

from service.contract.status import Status
from service.record.jobs import Found
from service.views.schemas import JobView, checkpoint_view


def job_view(found: Found) -> JobView:
    job, bundle = found
    if bundle is None or job.status is not Status.SUCCEEDED:
        return JobView.of(job)
    return JobView.of(job, checkpoint_view(bundle, f"/jobs/{job.id}/checkpoint"))


def as_json(view: BaseModel) -> Response:
    """An answer whose JSON is made here and now, in the caller's thread, and once."""
    return Response(view.model_dump_json(), media_type="application/json")


def as_json_array(views: Iterable[BaseModel]) -> Response:
    """As `as_json`; a long array must not keep the event loop busy."""
    content = ",".join(view.model_dump_json() for view in views)
    return Response(f"[{content}]", media_type="application/json")
