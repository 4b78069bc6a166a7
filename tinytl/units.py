"""Amounts as people write them: sizes (24MB, 512KiB), durations (10m), counts (20M)."""

import re
from collections.abc import Mapping
from fractions import Fraction

from tinytl.errors import TinyTLError

_SIZES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_DURATIONS = {"": 1, "s": 1, "m": 60, "h": 3600}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_AMOUNT = re.compile(r"\s*(\d{1,40}(?:\.\d{1,40})?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes meant by text: an integer, or a number with B, KB, MB, GB (10^3) or KiB, MiB, GiB."""
    num_bytes = _parse(text, _SIZES)
    if num_bytes is None:
        raise TinyTLError(
            f"not a size: {text!r}; write bytes as a number, or for example 64MB, 1.5GB, 512KiB"
        )
    if num_bytes < 1:
        raise TinyTLError(f"a size must be at least 1 byte but got {text!r}")
    return num_bytes


def parse_duration(text: str | int) -> int:
    """Whole seconds meant by text: an integer, or a number with s, m (minutes) or h."""
    seconds = _parse(text, _DURATIONS)
    if seconds is None:
        raise TinyTLError(
            f"not a duration: {text!r}; write seconds as a number, or for example 90s, 10m, 1.5h"
        )
    if seconds < 1:
        raise TinyTLError(f"a duration must be at least 1 second but got {text!r}")
    return seconds


def parse_count(text: str | int) -> int:
    """The count meant by text: an integer, or a number with k, M or G (powers of 10^3)."""
    count = _parse(text, _COUNTS)
    if count is None:
        raise TinyTLError(f"not a count: {text!r}; write a number, or for example 500k, 20M, 1.5G")
    if count < 1:
        raise TinyTLError(f"a count must be at least 1 but got {text!r}")
    return count


def _parse(text: str | int, factors: Mapping[str, int]) -> int | None:
    """A number times its unit's factor, without what is behind the point; None if it is none."""
    match = _AMOUNT.fullmatch(str(text))
    factor = factors.get(match[2].lower()) if match else None
    if match is None or factor is None:
        return None
    return int(Fraction(match[1]) * factor)


def format_bytes(num_bytes: float) -> str:
    """num_bytes for readers, 1 MB = 10^6 bytes: "812 B", "1.4 kB", "23.7 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(num_bytes) >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def format_count(count: float) -> str:
    """count for readers: "812", "1.4k", "23.7M", "1.2G"."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= factor:
            return f"{count / factor:.1f}{unit}"
    return f"{count:.0f}"
