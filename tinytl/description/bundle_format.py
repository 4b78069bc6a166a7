"""Which bundles this version reads. No torch: exports are made without it."""

from __future__ import annotations

from tinytl.errors import BundleError

FORMAT_VERSION = 2
"""Of networks with a padding or an input normalization that ofa's networks don't have, and of
pictures that are not cropped: readers of version 1 would not see it. All others are written as
version 1."""


def check_format_version(found: object) -> None:
    """Raises BundleError, which quotes it, for a version that is not known."""
    if found not in range(1, FORMAT_VERSION + 1):
        raise BundleError(
            f"format version {found!r} is unknown; "
            f"this version of tinyfit reads 1 to {FORMAT_VERSION}"
        )
