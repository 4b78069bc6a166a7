"""Wall clocks that jump, for processes that are started with them: libfaketime."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_SITECUSTOMIZE = """
import select, time  # libfaketime 0.9.10 makes nothing of Python's own sleep, clock_nanosleep
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """As far from the true time as it was last set."""

    path: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process and its children need to go by this clock. How long something takes,
        they measure truly, as on any machine whose clock is set."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join([str(self.path.parent), *sys.path]),
        }

    def set(self, *, hours: float) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(f"{3600 * hours:+.0f}\n")
        partial.rename(self.path)


@contextmanager
def new_clock() -> Iterator[Clock]:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("libfaketime is not installed")
    with tempfile.TemporaryDirectory(prefix="tinyfit-clock-") as name:
        Path(name).chmod(0o755)  # for PostgreSQL's user
        (Path(name) / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        clock = Clock(path=Path(name) / "offset", library=libraries[0])
        clock.set(hours=0)
        yield clock
