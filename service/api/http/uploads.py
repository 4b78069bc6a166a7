"""Receiving one file of a multipart form: straight to disk, counted as it comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from service.errors import InputError, TooLargeError
from tinytl.units import format_bytes

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "name": {"type": "string"},
                        "skip_broken": {
                            "type": "boolean",
                            "description": "Go on without images that can't be used.",
                        },
                    },
                }
            }
        },
    }
}
_FORM_OVERHEAD_BYTES = 10_000
_MAX_FIELD_BYTES = 1_000
_MAX_PARTS = 20
_USAGE = "send it as a form: curl -F file=@images.zip URL"


async def receive_file(request: Request, target: Path, *, max_bytes: int) -> dict[str, str]:
    """Write the form's field `file` to target and return its other fields."""
    content_type, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise InputError(
            f"expected a multipart form but got {content_type.decode('latin-1')!r}; {_USAGE}"
        )
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > max_bytes + _FORM_OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    with target.open("wb") as file:
        form = _Form(file)
        num_bytes = 0
        try:
            parser = MultipartParser(boundary, form.callbacks())
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > max_bytes + _FORM_OVERHEAD_BYTES:
                    raise _too_large(max_bytes)
                await run_in_threadpool(parser.write, chunk)
            parser.finalize()
        except (FormParserError, ClientDisconnect) as error:
            raise InputError(f"the upload is cut off or malformed; {_USAGE}") from error
    if not form.is_complete:
        raise InputError(f"the form has no complete field 'file'; {_USAGE}")
    return form.fields


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"the upload is larger than {format_bytes(max_bytes)}, the most that is accepted; "
        f"send smaller or fewer images"
    )


@dataclass
class _Form:
    """The parser's callbacks: the part named `file` goes to disk, other parts are short text."""

    file: BinaryIO
    fields: dict[str, str] = field(default_factory=dict)
    is_complete: bool = False
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""
    _part: str | None = None
    _text: bytearray = field(default_factory=bytearray)
    _num_files: int = 0
    _num_parts: int = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
        }

    def _on_part_begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise InputError(f"the form has more than {_MAX_PARTS} fields; {_USAGE}")
        self._part, self._disposition = None, b""
        self._text.clear()

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part == "file":
            self._num_files += 1
            if self._num_files > 1:
                raise InputError(f"the form has more than one field 'file'; {_USAGE}")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self.file.write(data[start:end])
        elif len(self._text) + end - start > _MAX_FIELD_BYTES:
            raise InputError(f"field {self._part!r} is longer than {_MAX_FIELD_BYTES} bytes")
        else:
            self._text.extend(data[start:end])

    def _on_part_end(self) -> None:
        if self._part == "file":
            self.is_complete = True
        elif self._part:
            self.fields[self._part] = self._text.decode("utf-8", "replace")
