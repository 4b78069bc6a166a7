"""The OpenAPI document: what FastAPI finds out, and what it can't."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service.api.http.problems import MEDIA_TYPE
from service.views.schemas import Problem

JsonObject = dict[str, Any]
Responses = dict[int | str, JsonObject]

OPEN_OPERATIONS = ("get_health", "get_readiness")
"""What answers without an API key."""

_REF = "#/components/schemas/{model}"
_PROBLEMS = {
    HTTPStatus.UNAUTHORIZED: "No API key, or one that is not active",
    HTTPStatus.FORBIDDEN: "The page of another site asks, and there are no API keys",
    HTTPStatus.NOT_FOUND: "Nothing has this id",
    HTTPStatus.CONFLICT: "The job's state, or jobs over the dataset, do not allow it",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than what is accepted",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The range holds no byte of the file",
    HTTPStatus.MISDIRECTED_REQUEST: "The Host is none of this server's, and there are no API keys",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The request does not make sense; `errors` says where",
    HTTPStatus.TOO_MANY_REQUESTS: "More requests than one client may send; see Retry-After",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A defect; the server's log has the details",
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "The database or the artifact store does not answer, or too many clients follow events; "
        "see Retry-After"
    ),
    HTTPStatus.INSUFFICIENT_STORAGE: "The server's disk is full",
}
_ANYWHERE = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def answers(example: Any, *errors: HTTPStatus, status: HTTPStatus = HTTPStatus.OK) -> Responses:
    """A route's `responses`: an example of its JSON, and the errors that are its own."""
    success: Responses = {status: {"content": {"application/json": {"example": example}}}}
    return success | problems(*errors)


def problems(*errors: HTTPStatus) -> Responses:
    return {status: {"description": _PROBLEMS[status]} for status in errors}


def operation_id(route: APIRoute) -> str:
    return route.name


def describe(app: FastAPI) -> JsonObject:
    """The document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _completed(
            get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
        )
    return app.openapi_schema


def _completed(document: JsonObject) -> JsonObject:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template=_REF)
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key (`tinyfit keys create NAME`). Needed as soon as there is "
            "one.",
        }
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method)
    return document


def _complete(operation: JsonObject, path: str, method: str) -> None:
    responses = operation["responses"]
    statuses = [*_ANYWHERE]
    if operation["operationId"] not in OPEN_OPERATIONS:
        operation["security"] = [{"key": []}, {}]
        statuses += (HTTPStatus.UNAUTHORIZED, HTTPStatus.MISDIRECTED_REQUEST)
        if method != "get":
            statuses.append(HTTPStatus.FORBIDDEN)
    for status in statuses:
        responses.setdefault(str(status.value), {"description": _PROBLEMS[status]})
    if method == "get":
        responses["304"] = {"description": "Not modified: If-None-Match names what is there"}
    for code, response in responses.items():
        if code >= "400" and "content" not in response:
            response["content"] = {MEDIA_TYPE: _problem(int(code), response["description"], path)}
    operation["responses"] = dict(sorted(responses.items()))


def _problem(status: int, description: str, path: str) -> JsonObject:
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": description,
        "instance": path,
    }
    return {"schema": {"$ref": _REF.format(model="Problem")}, "example": example}
