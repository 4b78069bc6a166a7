"""Which of two media types a client would rather have (RFC 9110, section 12.5.1)."""

from __future__ import annotations

_JSON = "application/json"

_Wish = tuple[float, int]
"""A weight, and how closely the range that says so names the type."""


def prefers_json(accept: str, *, over: str) -> bool:
    """Whether the header asks for JSON more, or more closely, than for the other type."""
    return _wish(accept, _JSON) > _wish(accept, over)


def _wish(accept: str, media_type: str) -> _Wish:
    ranges = {media_type: 3, f"{media_type.split('/')[0]}/*": 2, "*/*": 1}
    closest = (0.0, 0)
    for part in accept.split(","):
        given, *parameters = (text.strip().lower() for text in part.split(";"))
        closeness = ranges.get(given, 0)
        if closeness > closest[1]:
            closest = (_weight(parameters), closeness)
    return closest if closest[0] > 0 else (0.0, 0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, float(value))
            except ValueError:
                return 0.0
    return 1.0
