"""Following a job over server-sent events, across broken connections and server restarts."""

from __future__ import annotations

from collections.abc import Iterator

from httpx_sse import EventSource, ServerSentEvent, SSEError

from service.client.http import (
    AnswerError,
    ClientError,
    Connection,
    ConnectionFailedError,
    Patience,
    parse,
    parse_json,
)
from service.contract.status import EventKind
from service.views.schemas import EventView, JobView

_LONGEST_SILENCE_SECONDS = 60.0
"""A server says that it lives more often than this."""
_JOB = "job"
_KINDS = frozenset(kind.value for kind in EventKind)


def follow(connection: Connection, path: str, after: int) -> Iterator[EventView | JobView]:
    """What happens to the job at path, from the event after `after` on, until it has ended.

    Events come once each and in order; between them comes the job whenever it has changed.
    """
    patience = Patience(connection.patience_seconds)
    while True:
        try:
            for found in _read_stream(connection, path, after):
                patience.renew()
                if isinstance(found, EventView):
                    after = found.number
                yield found
            if parse(JobView, connection.get(path)).status.is_final:
                return
            failure: ClientError = ConnectionFailedError(
                f"{connection.url} ended the stream of events", is_undone=True
            )
        except ClientError as error:
            failure = error
        patience.wait(failure)


def _read_stream(connection: Connection, path: str, after: int) -> Iterator[EventView | JobView]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if after:
        headers["Last-Event-ID"] = str(after)
    url = f"{path}/events"
    with connection.stream(url, headers, timeout=_LONGEST_SILENCE_SECONDS) as response:
        try:
            for event in EventSource(response).iter_sse():
                found = _parse_event(event, connection.url + url)
                if found is not None:
                    yield found
        except SSEError as error:
            raise AnswerError(
                f"{connection.url}{url} did not answer with events: {error}"
            ) from error


def _parse_event(event: ServerSentEvent, url: str) -> EventView | JobView | None:
    """None for a kind of event that only a later version knows."""
    if event.event == _JOB:
        return parse_json(JobView, event.data, url)
    return parse_json(EventView, event.data, url) if event.event in _KINDS else None
