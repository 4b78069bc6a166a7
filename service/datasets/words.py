"""Counts and names in sentences for users."""

from __future__ import annotations

from collections.abc import Sequence

_MAX_NAMED = 5


def named(kind: str, names: Sequence[str], most: int = _MAX_NAMED) -> str:
    """ "1 image ('a.png')", "7 images ('a.png', 'b.png' and 5 more)"."""
    shown = ", ".join(repr(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{counted(kind, len(names))} ({shown}{more})"


def counted(kind: str, count: int) -> str:
    """ "1 image", "2 images", "2 classes"."""
    plural = kind + ("es" if kind.endswith("s") else "s")
    return f"{count} {kind if count == 1 else plural}"
