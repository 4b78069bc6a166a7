"""Conditional GET and HEAD, the one place: RFC 9110, sections 8.8.3, 9.3.2 and 13."""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TAG = re.compile(r'(?:W/)?("[^"]*")')
_HEAD = "tinyfit.head"


class HeadMiddleware:
    """HEAD is served as GET, and what it answers goes without its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        await self._app({**scope, "method": "GET", _HEAD: True}, receive, send_head)


def is_head(request: Request) -> bool:
    """Whether the client asks for headers alone, for what is dear to send."""
    return _HEAD in request.scope


def conditional(request: Request, response: Response) -> Response:
    """A GET's answer with an entity tag, or 304 where the client has it already."""
    if request.method != "GET" or response.status_code != HTTPStatus.OK:
        return response
    body = getattr(response, "body", None)
    if not isinstance(body, bytes):  # a stream or a file
        return response
    link = response.headers.get("Link", "").encode()  # a page's way on may change, not its rows
    tag = f'"{hashlib.blake2b(body + link, digest_size=16).hexdigest()}"'
    response.headers["ETag"] = tag
    response.headers.setdefault("Cache-Control", "private, no-cache")
    return not_modified(response) if is_known(request, tag) else response


def is_known(request: Request, tag: str) -> bool:
    """Whether If-None-Match names the tag. Tags are compared weakly, as it asks."""
    given = request.headers.get("if-none-match")
    return given is not None and (given.strip() == "*" or tag in _TAG.findall(given))


def not_modified(response: Response) -> Response:
    """304 with those headers of the answer that a cache goes by."""
    kept = ("etag", "cache-control", "vary", "link", "last-modified")
    headers = {name: response.headers[name] for name in kept if name in response.headers}
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
