"""The web server around the application: who may reach it, and how it ends."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from fastapi import FastAPI

from service.api.http.streams import Streams
from service.errors import InputError
from service.record.db.database import Database
from service.record.keys import has_keys

_GRACE_SECONDS = 10
"""What is being sent or received when the server is told to end has so long."""


class ExposedError(InputError):
    """Other machines could use the API without a key."""


class Server(uvicorn.Server):
    """Ends the streams of events as soon as it is told to end, so that it can."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._streams: Streams = app.state.streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)


def needs_key(listener: socket.socket, database_url: str) -> bool:
    """Whether other machines reach the socket, so that requests must come with a key.

    Raises ExposedError where there is none.
    """
    address = listener.getsockname()[0]
    if ipaddress.ip_address(address).is_loopback:
        return False
    database = Database(database_url)
    try:
        if not has_keys(database):
            raise ExposedError(
                f"on {address} other machines could use the API without a key; make one first "
                f"with `tinyfit keys create NAME`, or listen on 127.0.0.1"
            )
    finally:
        database.close()
    return True
