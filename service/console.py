"""Progress for people, on standard error."""

from __future__ import annotations

import time
from typing import TextIO

_LOG_EVERY_SECONDS = 5.0
_FIRST_ESTIMATE_SECONDS = 3.0
_FIRST_ESTIMATE_SHARE = 0.01


class Meter:
    """Shows a stage, a percentage and the time left: one live line on a terminal, else a line
    now and then.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_live = stream.isatty()
        self._started: tuple[float, float] | None = None
        self._last = ("", float("-inf"))
        self._width = 0

    def show(self, stage: str, progress: float) -> None:
        now = time.monotonic()
        if self._started is None or progress < self._started[1]:
            self._started = (now, progress)
        line = f"{stage:<12}{progress:4.0%}{self._time_left(now, progress)}"
        if self._is_live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            stage_before, time_before = self._last
            if stage == stage_before and now - time_before < _LOG_EVERY_SECONDS:
                return
            self._stream.write(line + "\n")
            self._last = (stage, now)
        self._stream.flush()

    def close(self) -> None:
        """End the live line."""
        if self._is_live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _time_left(self, now: float, progress: float) -> str:
        assert self._started is not None
        started, at_start = self._started
        seconds, gained = now - started, progress - at_start
        if seconds < _FIRST_ESTIMATE_SECONDS or gained < _FIRST_ESTIMATE_SHARE or progress >= 1:
            return ""
        return f"   about {format_seconds(seconds * (1 - progress) / gained)} left"


def format_seconds(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
