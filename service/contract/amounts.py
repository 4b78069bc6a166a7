"""Amounts as users send them: a number, or text with a unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from tinytl.units import parse_count, parse_duration, parse_size

_MAX_TEXT = 40
_MAX_SIZE_BYTES = 10**15
_MAX_SECONDS = 10**7
_MAX_COUNT = 10**15


def _read(parse: Callable[[str], int], what: str) -> BeforeValidator:
    def read(given: Any) -> int:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError(f"expected {what}")
        if len(str(given)) > _MAX_TEXT:
            raise ValueError(f"expected at most {_MAX_TEXT} characters")
        return parse(str(given))

    return BeforeValidator(read)


def _schema(maximum: int, example: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": maximum},
                {"type": "string", "examples": [example], "maxLength": _MAX_TEXT},
            ]
        }
    )


Size = Annotated[
    int,
    _read(parse_size, 'bytes as a number, or text such as "24MB"'),
    Field(le=_MAX_SIZE_BYTES),
    _schema(_MAX_SIZE_BYTES, "24MB"),
]
"""Bytes, or text such as "24MB"."""

Duration = Annotated[
    int,
    _read(parse_duration, 'seconds as a number, or text such as "10m"'),
    Field(le=_MAX_SECONDS),
    _schema(_MAX_SECONDS, "10m"),
]
"""Seconds, or text such as "10m"."""

Count = Annotated[
    int,
    _read(parse_count, 'a number, or text such as "20M"'),
    Field(le=_MAX_COUNT),
    _schema(_MAX_COUNT, "20M"),
]
"""A number, or text such as "20M"."""
