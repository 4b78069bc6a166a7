"""What was wrong with a request's fields, in words and field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError

_MAX_QUOTED = 200


def describe_invalid(error: RequestValidationError) -> tuple[str, list[dict[str, Any]]]:
    """One text for all, and for each field where it is, what is wrong and what was sent."""
    errors = [
        {
            "where": ".".join(map(str, found["loc"])),
            "what": _what(found),
            "got": _quoted(error.body if found["type"] == "json_invalid" else found.get("input")),
        }
        for found in error.errors()
    ]
    return "; ".join(f"{found['where']}: {found['what']}" for found in errors), errors


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _what(found: Mapping[str, Any]) -> str:
    if found["type"] == "json_invalid":
        return f"not JSON: {found['ctx']['error']}"
    if found["type"] == "model_attributes_type":
        return "expected a JSON object, sent with Content-Type: application/json"
    text = shortened(found["msg"].removeprefix("Value error, "), _MAX_QUOTED)
    if found["msg"].startswith("Input should"):  # pydantic's own, which leave out what came
        text += f", but got {shortened(repr(found['input']), _MAX_QUOTED)}"
    return text


def _quoted(value: Any) -> Any:
    """What was sent, as JSON can say it: numbers like NaN and what is long become short text."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    is_plain = value is None or isinstance(value, int)
    is_plain = is_plain or (isinstance(value, float) and math.isfinite(value))
    shown = value if isinstance(value, str) else repr(value)
    return value if is_plain and len(shown) <= _MAX_QUOTED else shortened(shown, _MAX_QUOTED)
