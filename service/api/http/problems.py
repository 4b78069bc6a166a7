"""Every error leaves as an RFC 9457 problem document; the one place where errors meet HTTP."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api.http.invalid import describe_invalid, shortened
from service.errors import (
    BrokenImagesError,
    ConflictError,
    InfeasibleLimitError,
    InputError,
    NotFoundError,
    RateLimitError,
    ServiceError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from service.record.db.database import is_outage

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_STATUSES: tuple[tuple[type[ServiceError], HTTPStatus], ...] = (
    (UnauthorizedError, HTTPStatus.UNAUTHORIZED),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RateLimitError, HTTPStatus.TOO_MANY_REQUESTS),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
)
_OUTAGE_RETRY_SECONDS = 5
_MAX_DETAIL = 2_000
_MAX_ERRORS = 1_000
_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")


class _ProblemResponse(JSONResponse):
    """JSON in ASCII: what users sent may hold half characters, which UTF-8 can't."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def add_problem_handlers(app: FastAPI) -> None:
    for kind in (
        *(ServiceError, RequestValidationError, HTTPException),
        *(SQLAlchemyError, OSError, Exception),
    ):
        app.add_exception_handler(kind, problem_of)


def problem_of(request: Request, error: Exception) -> JSONResponse:
    """The answer that an error stands for."""
    match error:
        case ServiceError():
            return _of_service_error(request, error)
        case RequestValidationError():
            detail, errors = describe_invalid(error)
            return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)
        case HTTPException():
            return _of_http_error(request, error)
        case SQLAlchemyError() if is_outage(error):
            logger.warning("%s %s: the database is out: %s", *_request_line(request), error)
            return _problem(
                request,
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the database does not answer; try again in a while",
                headers={"Retry-After": str(_OUTAGE_RETRY_SECONDS)},
            )
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            logger.error("%s %s: %s", *_request_line(request), error)
            return _problem(
                request,
                HTTPStatus.INSUFFICIENT_STORAGE,
                "the server's disk is full; nothing was kept of this request",
            )
    logger.error("%s %s failed", *_request_line(request), exc_info=error)
    return _problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "an unexpected error happened; the server's log has the details",
    )


def _problem(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": shortened(detail, _MAX_DETAIL),
        "instance": request.url.path,
        **members,
    }
    return _ProblemResponse(content, status, headers=headers)


def _of_service_error(request: Request, error: ServiceError) -> JSONResponse:
    status = next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    headers: dict[str, str] = {}
    members: dict[str, Any] = {}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, InfeasibleLimitError):
        members = error.members
    if isinstance(error, BrokenImagesError):
        members = {"errors": list(islice(_errors(error), _MAX_ERRORS))}
    return _problem(request, status, str(error), headers, **members)


def _errors(error: BrokenImagesError) -> Iterator[dict[str, str]]:
    for path, what in error.problems.items():
        yield {"where": shortened(path, _MAX_DETAIL), "what": shortened(what, _MAX_DETAIL)}


def _of_http_error(request: Request, error: HTTPException) -> JSONResponse:
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"nothing is at {request.url.path!r}; /openapi.json lists what is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_allowed_methods(request))
        detail = f"{request.method} does not work on {request.url.path!r}; use {allowed}"
        return _problem(request, error.status_code, detail, headers={"Allow": allowed})
    return _problem(request, error.status_code, detail, headers=error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """What the path takes; the framework names the methods of its first route only. None of
    the routes has the path of a file under a mount: there it is the rest of the path by now.
    """
    routes = request.app.router.routes

    def is_taken(method: str) -> bool:
        served = "GET" if method == "HEAD" else method
        scope = {**request.scope, "method": served}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return [method for method in _METHODS if is_taken(method)] or ["GET", "HEAD"]


def _request_line(request: Request) -> tuple[str, str]:
    return request.method, request.url.path
