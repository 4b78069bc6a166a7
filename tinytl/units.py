"""Sizes as people write them: 24MB, 1.5GB, 512KiB, or plain bytes."""

import re

from tinytl.errors import TinyTLError

_FACTORS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SIZE = re.compile(r"\s*(\d{1,40}(?:\.\d{1,40})?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes meant by text: an integer, or a number with B, KB, MB, GB (10^3) or KiB, MiB, GiB."""
    match = _SIZE.fullmatch(str(text))
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise TinyTLError(
            f"not a size: {text!r}; write bytes as a number, or for example 64MB, 1.5GB, 512KiB"
        )
    num_bytes = int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor
    if num_bytes < 1:
        raise TinyTLError(f"a size must be at least 1 byte but got {text!r}")
    return num_bytes


def format_bytes(num_bytes: float) -> str:
    """num_bytes for readers, 1 MB = 10^6 bytes: "812 B", "1.4 kB", "23.7 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(num_bytes) >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} B"
