"""How far a job is: the share of its work that is done, with the work counted beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

_WRITE_EVERY_SECONDS = 0.5


class Stage(StrEnum):
    INGEST = "ingest"
    ADAPT = "adapt"
    SEARCH = "search"
    TRAIN = "train"
    EXPORT = "export"


class Progress:
    """Turns "so much of this stage is done" into the job's progress, written now and then.

    write: stage, progress from 0 to 1, and seconds left, None as long as nothing tells.
    """

    def __init__(
        self,
        work: dict[Stage, float],
        write: Callable[[Stage, float, float | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._total = sum(work.values())
        self._write = write
        self._clock = clock
        self._last_write = float("-inf")
        self._stage: Stage | None = None
        self._stage_start = (0.0, 0.0)
        self._first: tuple[float, float] | None = None

    def report(self, stage: Stage, done: float, total: float) -> None:
        """done of total, in a unit of the stage's own."""
        time_now = self._clock()
        is_new_stage = stage is not self._stage
        if (
            not is_new_stage
            and done < total
            and time_now - self._last_write < _WRITE_EVERY_SECONDS
        ):
            return
        self._report(time_now, stage, done, total)

    def replan(self, work: dict[Stage, float]) -> None:
        """Go on by another count of the work; what is done counts by it, too."""
        self._work, self._total, self._stage = work, sum(work.values()), None

    def resume(self, stage: Stage, done: float, total: float) -> None:
        """As report, of what earlier attempts have done: it says nothing of this one's pace."""
        self._stage = self._first = None
        self._report(self._clock(), stage, done, total)

    def _report(self, time_now: float, stage: Stage, done: float, total: float) -> None:
        before = sum(self._work[earlier] for earlier in list(Stage)[: list(Stage).index(stage)])
        share = min(1.0, done / total) if total else 1.0
        work_done = before + share * self._work[stage]
        if stage is not self._stage:
            self._stage, self._stage_start = stage, (time_now, work_done)
        self._first = self._first or (time_now, work_done)
        self._write(
            stage, work_done / self._total, self._seconds_left(time_now, work_done, before)
        )
        self._last_write = time_now

    def _seconds_left(self, time_now: float, work_done: float, before: float) -> float | None:
        """The rest of this stage at its own pace, the stages after it at this attempt's."""
        assert self._stage is not None
        assert self._first is not None
        overall = _seconds_per_work(self._first, (time_now, work_done))
        if overall is None:
            return None
        own = _seconds_per_work(self._stage_start, (time_now, work_done)) or overall
        stage_end = before + self._work[self._stage]
        return own * (stage_end - work_done) + overall * (self._total - stage_end)


def _seconds_per_work(start: tuple[float, float], end: tuple[float, float]) -> float | None:
    seconds, work = end[0] - start[0], end[1] - start[1]
    return seconds / work if work > 0 and seconds > 0 else None
