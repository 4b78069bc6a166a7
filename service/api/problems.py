"""Every error leaves as an RFC 9457 problem document; the one place where errors meet HTTP."""

from __future__ import annotations

import errno
import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.errors import (
    ConflictError,
    InfeasibleLimitError,
    InputError,
    NotFoundError,
    ServiceError,
    TooLargeError,
)
from service.schemas import Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_STATUSES: tuple[tuple[type[ServiceError], HTTPStatus], ...] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (ConflictError, HTTPStatus.CONFLICT),
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
)

RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "A problem with the request",
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
}
"""What every route may answer besides its own."""

_MAX_QUOTED = 200
_MAX_DETAIL = 2_000


class _ProblemResponse(JSONResponse):
    """JSON in ASCII: what users sent may hold half characters, which UTF-8 can't."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(OSError, _on_os_error)
    app.add_exception_handler(Exception, _on_defect)


def _problem(
    request: Request, status: int, detail: str, headers: Any = None, **members: Any
) -> JSONResponse:
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _shortened(detail, _MAX_DETAIL),
        "instance": request.url.path,
        **members,
    }
    return _ProblemResponse(content, status, headers=headers)


def _on_service_error(request: Request, error: Exception) -> JSONResponse:
    status = next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    members = {}
    if isinstance(error, InfeasibleLimitError):
        members["smallest_feasible_bytes"] = error.smallest_feasible_bytes
    return _problem(request, status, str(error), **members)


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "where": ".".join(map(str, found["loc"])),
            "what": _what(found),
            "got": _quoted(found.get("input")),
        }
        for found in error.errors()
    ]
    detail = "; ".join(f"{found['where']}: {found['what']}" for found in errors)
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _what(found: Mapping[str, Any]) -> str:
    if found["type"] == "json_invalid":
        return f"not JSON: {found['ctx']['error']}"
    if found["type"] == "model_attributes_type":
        return "expected a JSON object, sent with Content-Type: application/json"
    return _shortened(found["msg"].removeprefix("Value error, "), _MAX_QUOTED)


def _quoted(value: Any) -> Any:
    """What was sent, as JSON can say it: numbers like NaN and what is long become short text."""
    is_plain = value is None or isinstance(value, int)
    is_plain = is_plain or (isinstance(value, float) and math.isfinite(value))
    shown = value if isinstance(value, str) else repr(value)
    return value if is_plain and len(shown) <= _MAX_QUOTED else _shortened(shown, _MAX_QUOTED)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"nothing is at {request.url.path!r}; /docs lists what is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_allowed_methods(request))
        detail = f"{request.method} does not work on {request.url.path!r}; use {allowed}"
        return _problem(request, error.status_code, detail, headers={"Allow": allowed})
    return _problem(request, error.status_code, detail, headers=error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """What the path takes; the framework names the methods of its first route only."""
    routes = request.app.router.routes
    return [
        method
        for method in ("GET", "POST")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


def _on_os_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return _on_defect(request, error)
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return _problem(
        request,
        HTTPStatus.INSUFFICIENT_STORAGE,
        "the server's disk is full; nothing was kept of this request",
    )


def _on_defect(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "an unexpected error happened; the server's log has the details",
    )
