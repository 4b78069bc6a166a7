"""What holds of every container's entries, whoever made it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from service.errors import DatasetError, TooLargeError
from service.settings import Settings
from tinytl.units import format_bytes

_NESTED = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst"})
_RATIO_FLOOR_BYTES = 1_000_000
"""What is smaller than this may be compressed as it likes: it can do no harm."""
_FOLDERS_PER_CLASS = 4
"""One in each split, and room for those around them."""
_MAX_PATH = 4_096


def safe_path(name: str) -> str:
    """The path with forward slashes and no detours, a slash at its end where one was. Raises
    DatasetError where it points outside."""
    path = name.replace("\\", "/")
    parts = path.rstrip("/").split("/")
    if "\0" in name:
        raise DatasetError(f"entry {name!r} has a null byte in its name; rename it")
    if len(name) > _MAX_PATH:
        raise DatasetError(
            f"entry {name[:60]!r}... has a path of {len(name)} characters; at most {_MAX_PATH} "
            f"are accepted"
        )
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        raise DatasetError(f"entry {name!r} has an absolute path; pack the folder itself")
    if ".." in parts:
        raise DatasetError(f"entry {name!r} points outside the archive; pack the folder itself")
    path = "/".join(part for part in parts if part not in ("", "."))
    return path + "/" if name.endswith(("/", "\\")) else path


def check_file(path: str, num_bytes: int, settings: Settings) -> None:
    if PurePosixPath(path).suffix.lower() in _NESTED:
        raise DatasetError(f"entry {path!r} is an archive in the archive; unpack it first")
    is_table = path.lower().endswith(".parquet")  # of images, each of which is checked
    if num_bytes > (settings.max_dataset_bytes if is_table else settings.max_image_bytes):
        raise TooLargeError(
            f"entry {path!r} has {format_bytes(num_bytes)}; an image may have at most "
            f"{format_bytes(settings.max_image_bytes)}"
        )


def check_ratio(what: str, unpacked_bytes: int, packed_bytes: int, settings: Settings) -> None:
    ratio = unpacked_bytes / max(1, packed_bytes)
    if unpacked_bytes > _RATIO_FLOOR_BYTES and ratio > settings.max_compression_ratio:
        raise DatasetError(
            f"{what} unpacks to {ratio:.0f} times its size, as a zip bomb does; at most "
            f"{settings.max_compression_ratio:g} times is accepted"
        )


def check_totals(num_files: int, num_bytes: int, settings: Settings) -> None:
    if num_files > settings.max_dataset_images:
        raise TooLargeError(
            f"the archive has {num_files} files; at most {settings.max_dataset_images} are "
            f"accepted"
        )
    if num_bytes > settings.max_dataset_bytes:
        raise TooLargeError(
            f"the archive unpacks to {format_bytes(num_bytes)}; at most "
            f"{format_bytes(settings.max_dataset_bytes)} are accepted"
        )


def max_entries(settings: Settings) -> int:
    """Images, folders, and as many leftovers beside them."""
    return 2 * (settings.max_dataset_images + _FOLDERS_PER_CLASS * settings.max_classes)
