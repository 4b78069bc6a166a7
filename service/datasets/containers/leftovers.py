"""What systems and services leave beside photos, which nobody means to send."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".mpo"}
)
_NAMES = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "zbthumbnail.info"}
    | {"icon\r", "$recycle.bin", "#recycle", "@eadir", "@__thumb", "@recycle", "lost+found"}
    | {"sync.ffs_db", "system volume information"}
)
"""In lower case: of Windows, macOS, Picasa, and of Synology's and QNAP's disks."""
_SUFFIXES = frozenset({".aae", ".xmp", ".thm", ".lnk", ".tmp", ".crdownload", ".part"})
"""What edits of a photo, its thumbnail, a short cut and half a download are called."""
_SIDE_CAR = re.compile(
    rf".+({'|'.join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))})\b.*\.json",
    re.IGNORECASE | re.DOTALL,
)
"""photo.jpg.json, photo.jpg.supplemental-metadata.json, as Google Takeout writes."""


def is_leftover(parts: tuple[str, ...]) -> bool:
    """Whether a path is a leftover, or in a folder that is one."""
    name = parts[-1]
    return (
        any(part.startswith(".") or part.lower() in _NAMES for part in parts)
        or PurePosixPath(name.lower()).suffix in _SUFFIXES
        or _SIDE_CAR.fullmatch(name) is not None
    )


def looks_like_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


@dataclass
class Leftovers:
    """Those of one container, counted."""

    count: int = 0
    hidden_images: list[str] = field(default_factory=list)
    """Images that are left out as a dot comes first in their name, or a folder's."""

    def is_one(self, path: str) -> bool:
        return is_leftover(tuple(path.split("/")))

    def take(self, path: str) -> bool:
        """Whether the path is a leftover, which is then counted."""
        if not self.is_one(path):
            return False
        parts = path.split("/")
        self.count += 1
        is_systems = any(part.lower() in _NAMES or part.startswith("._") for part in parts)
        if looks_like_image(path) and not is_systems:
            self.hidden_images.append(path)
        return True
