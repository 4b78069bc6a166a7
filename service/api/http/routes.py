"""How every route reads and answers: short bodies in, conditional GETs out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from service.api.http.conditional import conditional
from service.errors import InputError

_MAX_BODY_BYTES = 100_000

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Route(APIRoute):
    """Its GETs are conditional."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_conditional(request: Request) -> Response:
            return conditional(request, await handle(request))

        return handle_conditional


class ShortBodyRoute(Route):
    """Refuses a body over the limit while it comes in, before it fills the memory, and one that
    can't be JSON."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_short(request: Request) -> Response:
            try:
                return await handle(Request(request.scope, _counted(request.receive)))
            except HTTPException as error:
                if error.status_code != HTTPStatus.BAD_REQUEST:
                    raise
                # bytes that are no text, or thousands of brackets
                raise InputError("body: not JSON: it can't be read as text") from error

        return handle_short


def _counted(receive: Receive) -> Receive:
    num_bytes = 0

    async def receive_counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > _MAX_BODY_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {_MAX_BODY_BYTES} bytes, the most that is accepted here",
            )
        return message

    return receive_counted
