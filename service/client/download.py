"""Downloading a bundle: goes on where it broke off, checked by its SHA-256, there whole or not at
all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx

from service.client.http import (
    TIMEOUT,
    AnswerError,
    ClientError,
    Connection,
    Patience,
)
from service.errors import ServiceError
from service.views.results import CheckpointView

Progress = Callable[[int, int], None]
"""Called with how many bytes are done, and how many there are."""

_DIGITS_OF_NAME = 16


class ChecksumError(ServiceError):
    """What came is not what the server says it is; nothing was kept of it."""


def download(
    connection: Connection,
    path: str,
    checkpoint: CheckpointView,
    target: Path,
    on_progress: Progress | None = None,
) -> None:
    """Get the file at path into target. What a killed download left beside it is gone on with."""
    partial = target.with_name(f".{target.name}.{checkpoint.sha256[:_DIGITS_OF_NAME]}.partial")
    patience = Patience(connection.patience_seconds)
    with partial.open("ab") as file:
        while file.tell() < checkpoint.bytes:
            num_bytes = file.tell()
            try:
                _receive(connection, path, checkpoint, file, on_progress)
                break
            except ClientError as error:
                if file.tell() > num_bytes:
                    patience.renew()
                patience.wait(error)
        file.flush()
        os.fsync(file.fileno())
    found = _sha256(partial)
    if found != checkpoint.sha256:
        partial.unlink()
        raise ChecksumError(
            f"the download is damaged: its SHA-256 is {found}, not {checkpoint.sha256}; "
            f"download it again"
        )
    partial.replace(target)


def _receive(
    connection: Connection,
    path: str,
    checkpoint: CheckpointView,
    file: BinaryIO,
    on_progress: Progress | None,
) -> None:
    headers = {"Accept-Encoding": "identity"}
    if start := file.tell():
        headers |= {"Range": f"bytes={start}-", "If-Range": f'"{checkpoint.sha256}"'}
    assert TIMEOUT.read is not None
    try:
        with connection.stream(path, headers, timeout=TIMEOUT.read) as response:
            if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                _check_start(response, start)
            else:  # the whole comes again
                file.seek(0)
                file.truncate()
            for chunk in response.iter_raw():
                file.write(chunk)
                if on_progress is not None:
                    on_progress(file.tell(), checkpoint.bytes)
    finally:
        file.flush()


def _check_start(response: httpx.Response, start: int) -> None:
    said = response.headers.get("Content-Range", "")
    if not said.startswith(f"bytes {start}-"):
        raise AnswerError(f"asked for the bytes from {start} on but got {said!r}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
