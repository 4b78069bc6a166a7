"""Server-sent events: open streams, how many there may be, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
from fastapi import Response
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.types import Receive, Scope, Send

from service.errors import UnavailableError

_KEEP_ALIVE_SECONDS = 15.0
_RETRY_SECONDS = 5


class Streams:
    """The open streams of one application."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._closing = asyncio.Event()
        self.num_open = 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Raises UnavailableError where too many are open."""
        if self.num_open >= self._max_open:
            raise UnavailableError(
                f"{self._max_open} clients follow events already, as many as may; ask for "
                f"application/json from time to time instead, or try again later",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1

    def close(self) -> None:
        """End all streams, as the server ends; clients come back when it is up again."""
        self._closing.set()

    async def wait(self, seconds: float) -> bool:
        """Sleep, and say whether to go on."""
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return True
        return False


class EventStream(Response):
    """Sends messages as they come, until they end, the client is gone or the server stops."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncIterator[bytes], streams: Streams) -> None:
        self._messages = messages
        self._streams = streams
        self.status_code = 200
        self.background = None
        self.init_headers(
            {
                "Cache-Control": "no-cache",
                "Vary": "Accept",
                "X-Accel-Buffering": "no",  # proxies hold back nothing
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.opened():
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            async with anyio.create_task_group() as group:

                async def send_all() -> None:
                    async for message in self._messages:
                        await _send_part(send, message)
                    await send({"type": "http.response.body", "body": b""})
                    group.cancel_scope.cancel()

                async def keep_alive() -> None:
                    while True:  # proxies close what is silent for long
                        await anyio.sleep(_KEEP_ALIVE_SECONDS)
                        await _send_part(send, KEEPALIVE_COMMENT)

                group.start_soon(send_all)
                group.start_soon(keep_alive)
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()


async def _send_part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
