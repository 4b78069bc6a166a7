"""What happens to a job, as it happens: server-sent events, or JSON for who polls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from service.api.access import is_let_in_still
from service.api.deps import MAX_NUMBER, DatabaseDep, JobId, SettingsDep, StreamsDep
from service.api.document.examples import EVENT, EVENT_STREAM
from service.api.document.openapi import problems
from service.api.http.accept import prefers_json
from service.api.http.conditional import is_head
from service.api.http.routes import Route
from service.api.http.streams import EventStream, Streams
from service.api.routes.views import as_json_array, job_view
from service.contract.status import EventKind
from service.errors import NotFoundError
from service.record import events as record
from service.record.db.database import Database, is_outage
from service.record.jobs import find_job
from service.views.schemas import EventView

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=Route)

_AT_ONCE = 500

After = Annotated[
    int, Query(ge=0, le=MAX_NUMBER, description="Answer with events after this number.")
]
LastEventId = Annotated[
    int | None,
    Header(ge=0, le=MAX_NUMBER, description="As `after`, which it overrides; browsers send it."),
]
_MESSAGE_SCHEMA = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "event": {"type": "string", "enum": [*EventKind, "job"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": "#/components/schemas/EventView"},
                    {"$ref": "#/components/schemas/JobView"},
                ]
            },
        },
    },
}


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_model=list[EventView],
    responses={
        HTTPStatus.OK: {
            "content": {
                "application/json": {"example": [EVENT]},
                "text/event-stream": {"itemSchema": _MESSAGE_SCHEMA, "example": EVENT_STREAM},
            }
        },
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
async def list_events(
    request: Request,
    job_id: JobId,
    database: DatabaseDep,
    settings: SettingsDep,
    streams: StreamsDep,
    after: After = 0,
    last_event_id: LastEventId = None,
    limit: Annotated[
        int, Query(ge=1, le=1_000, description="The most to answer with, in JSON.")
    ] = _AT_ONCE,
) -> Response:
    """Server-sent events. Each recorded one has its number as `id`, its kind as `event` and an
    EventView as `data`. Between them, without an id, comes `event: job` with a JobView whenever
    that has changed. The stream ends by itself once the job has ended and all is sent, or once its
    API key is revoked.

    With `Accept: application/json`, for polling: the events so far, as an array.
    """
    await run_in_threadpool(find_job, database, job_id)  # its 404, before anything is sent
    after = after if last_event_id is None else last_event_id
    if prefers_json(request.headers.get("accept", ""), over="text/event-stream"):
        response = await run_in_threadpool(_array, database, job_id, after, limit)
        response.headers["Vary"] = "Accept"
        return response
    follower = _Follower(database=database, job_id=job_id, after=after)
    messages = (
        _nothing()
        if is_head(request)
        else _follow(request, follower, streams, settings.event_poll_seconds)
    )
    return EventStream(messages, streams)


def _array(database: Database, job_id: str, after: int, limit: int) -> Response:
    events = record.list_events(database, job_id, after=after, limit=limit)
    return as_json_array(map(EventView.of, events))


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


async def _follow(
    request: Request, follower: _Follower, streams: Streams, poll_seconds: float
) -> AsyncIterator[bytes]:
    """A look at the database now and then; between looks no connection and no thread is held."""
    while not follower.is_done:
        try:
            if not await is_let_in_still(request):
                return
            messages = await run_in_threadpool(follower.look)
        except NotFoundError:  # deleted
            return
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            messages = []  # the stream outlives it
        for message in messages:
            yield message
        is_behind = follower.is_behind
        if not follower.is_done and not await streams.wait(0 if is_behind else poll_seconds):
            return


@dataclass(kw_only=True)
class _Follower:
    """What one client has been sent."""

    database: Database
    job_id: str
    after: int
    view: str = ""
    is_behind: bool = field(default=False, init=False)
    """Whether there are more events than one look brings."""
    is_done: bool = field(default=False, init=False)

    def look(self) -> list[bytes]:
        """What is new, as messages. One query where nothing is. Raises NotFoundError."""
        found = find_job(self.database, self.job_id)
        job, _ = found
        messages = []
        if job.num_events > self.after:
            for event in record.list_events(
                self.database, self.job_id, after=self.after, limit=_AT_ONCE
            ):
                view = EventView.of(event).model_dump_json()
                messages.append(_message(view, event.kind.value, str(event.number)))
                self.after = event.number
        self.is_behind = job.num_events > self.after
        view = job_view(found).model_dump_json()
        if view != self.view and not self.is_behind:
            messages.append(_message(view, "job"))
            self.view = view
        self.is_done = job.status.is_final and not self.is_behind
        return messages


def _message(data: str, kind: str, number: str | None = None) -> bytes:
    return format_sse_event(data_str=data, event=kind, id=number)
