"""Sending a bundle: whole, from the middle on (RFC 9110, section 14), or not at all again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service.api.http.conditional import is_head, is_known, not_modified
from service.errors import BlobError, NotFoundError
from service.record.db.models import Artifact
from service.record.files.artifacts import artifact_path
from service.record.files.blobs import Blobs
from service.settings import Settings

_MEDIA_TYPE = "application/zip"
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.IGNORECASE)


Content = Path | Callable[[int, int], Iterator[bytes]]
"""A file, or what gives the bytes from one position up to another."""


def find_content(bundle: Artifact, settings: Settings, blobs: Blobs) -> Content:
    """Raises NotFoundError where the bundle is gone, or damaged."""
    gone = f"the checkpoint of job {bundle.job_id!r} is gone"
    if bundle.blob_sha256 is None:
        path = artifact_path(settings, bundle)
        if not path.is_file():
            raise NotFoundError(f"{gone} from {path}; run it again")
        return path
    try:
        blob = blobs.find(bundle.blob_sha256)
    except BlobError as error:
        raise NotFoundError(f"{gone} ({error}); run it again") from error
    return blobs.path(blob) or partial(blobs.read, blob)


def send_bundle(
    request: Request, content: Content, *, num_bytes: int, sha256: str, filename: str
) -> Response:
    """The bundle, as the request's headers want it. Raises HTTPException where its range is empty.

    Several ranges at once, and what is no range of bytes, are answered with the whole file.
    """
    tag = f'"{sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Accept-Ranges": "bytes"}
    if is_known(request, tag):
        return not_modified(Response(headers=headers))
    part = None
    if not is_head(request) and request.headers.get("if-range", tag) == tag:
        part = find_part(request.headers.get("range", ""), num_bytes)
    if isinstance(content, Path):
        return _File(
            content,
            media_type=_MEDIA_TYPE,
            filename=filename,
            headers=headers,
            part=part,
            is_head=is_head(request),
        )
    headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    first, last = part or (0, num_bytes - 1)
    headers["Content-Length"] = str(last + 1 - first)
    if part is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{num_bytes}"
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    if is_head(request):
        return StreamingResponse(iter(()), status, headers, _MEDIA_TYPE)
    return StreamingResponse(content(first, last + 1), status, headers, _MEDIA_TYPE)


def find_part(wanted: str, num_bytes: int) -> tuple[int, int] | None:
    """First and last byte of the range wanted; None where the header is to be ignored.

    Raises HTTPException (416) where no byte is in it.
    """
    match = _RANGE.fullmatch(wanted.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return None
    given_first, given_last = match.groups()
    last = num_bytes - 1
    if not given_first:
        first = max(0, num_bytes - int(given_last))
    else:
        first = int(given_first)
        if given_last and int(given_last) < first:
            return None
        last = min(last, int(given_last or last))
    if first > last:
        raise HTTPException(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"{wanted!r} is outside of the file's {num_bytes} bytes",
            headers={"Content-Range": f"bytes */{num_bytes}"},
        )
    return first, last


class _File(FileResponse):
    """Sends a part that was found above, in place of what the request's headers say."""

    def __init__(
        self,
        path: Path,
        *,
        media_type: str,
        filename: str,
        headers: dict[str, str],
        part: tuple[int, int] | None,
        is_head: bool,
    ) -> None:
        super().__init__(path, media_type=media_type, filename=filename, headers=headers)
        self._part = part
        self._is_head = is_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]
        if self._part is not None:
            kept.append((b"range", b"bytes=%d-%d" % self._part))
        method = "HEAD" if self._is_head else scope["method"]  # does not open the file
        await super().__call__({**scope, "headers": kept, "method": method}, receive, send)
