"""JSON documents that a stranger sent."""

from __future__ import annotations

import json
from typing import Any

from service.errors import DatasetError


def read_json(path: str, text: str) -> Any:
    """Raises DatasetError for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path!r} can't be read as JSON ({error}); export it again, or remove it"
        ) from error
