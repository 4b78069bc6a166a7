"""Routes that take a JSON object read no more than one needs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

_MAX_BODY_BYTES = 100_000


class ShortBodyRoute(APIRoute):
    """Refuses a body over the limit while it comes in, before it fills the memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_short(request: Request) -> Response:
            return await handle(Request(request.scope, _counted(request.receive)))

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
