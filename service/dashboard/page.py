"""The page's routes: HTML at /, its scripts and styles under /static/. Nothing from elsewhere."""

from __future__ import annotations

import mimetypes
from os import PathLike, stat_result
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_STATIC = Path(__file__).with_name("static")
_INDEX = _STATIC / "index.html"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for again: after an update nothing is stale
}
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Said here: what a machine's own table says of them differs, and browsers are strict."""


def add_page(app: FastAPI) -> None:
    """Serve the page."""
    for suffix, media_type in _MEDIA_TYPES.items():
        mimetypes.add_type(media_type, suffix)
    files = _PageFiles(directory=_STATIC)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_page(request: Request) -> Response:
        return await files.get_response(_INDEX.name, request.scope)

    app.mount("/static", files, name="static")


class _PageFiles(StaticFiles):
    """Static files with the page's headers; unchanged ones are a 304."""

    def file_response(
        self,
        full_path: str | PathLike[str],
        stat_result: stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response
