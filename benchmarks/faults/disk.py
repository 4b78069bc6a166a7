"""A disk of a run's own, which may be full for a while."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

_LARGEST_PIECE = 1 << 28
_SMALLEST_PIECE = 1 << 12


@contextmanager
def small_disk(directory: Path, *, num_bytes: int) -> Iterator[Path | None]:
    """A file system in memory, within directory; None where nobody may mount one."""
    disk = directory / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tinyfit", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        print("the disk is never full: mounting one needs root", file=sys.stderr)
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_up(disk: Path) -> Callable[[], None] | None:
    """Leaves not a block, until what is returned is called; None where it is full already."""
    ballast = disk / "ballast"
    if ballast.exists():
        return None
    with ballast.open("wb") as file:
        end, piece = 0, _LARGEST_PIECE
        while piece >= _SMALLEST_PIECE:
            try:
                os.posix_fallocate(file.fileno(), end, piece)
                end += piece
            except OSError:  # smaller ones may find room
                piece //= 2
    return partial(ballast.unlink, missing_ok=True)
