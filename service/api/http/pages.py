"""Long lists, page by page: an opaque cursor, and a Link header (RFC 8288) to the next page."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query

from service.errors import InputError

Limit = Annotated[int, Query(ge=1, le=1_000, description="The most to answer with.")]
Cursor = Annotated[
    str | None,
    Query(max_length=300, description="Where the page begins, as the page before it says."),
]

Place = tuple[float, str]
"""A row in a list, newest first: when it was made, and its id."""


def write_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Place:
    """Raises InputError for what no page gave out."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_at, row_id = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, TypeError, RecursionError):
        created_at = row_id = None
    is_time = isinstance(created_at, float) and math.isfinite(created_at)
    if not is_time or not isinstance(row_id, str) or not row_id.isalnum() or not row_id.isascii():
        raise InputError(
            f"query.cursor: {cursor!r} is not a cursor; take it from the Link header of the "
            f"page before"
        )
    return created_at, row_id


def next_link(path: str, *, limit: int, last: Place, **filters: str | None) -> Mapping[str, str]:
    """The header that leads to the page after a row."""
    given = {name: value for name, value in filters.items() if value is not None}
    query = urlencode({**given, "limit": limit, "cursor": write_cursor(last)})
    return {"Link": f'<{path}?{query}>; rel="next"'}
