"""How far a job is: the share of its work that is done, with the work counted beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from service.schemas import JobSettings

_WRITE_EVERY_SECONDS = 0.5
_ADAPT_PASS = 3.0
_TRAIN_PASS = 6.0
_HEAD_PASS = 1.5
"""Training an image costs about so many forward passes; small batches make it dearer."""
_ADAPT_BATCH = 32
_CALIBRATION_IMAGES = 128
_MEASURING_PASSES = 1500.0
_PASSES_PER_SECOND = 500.0
"""Of a search that is limited by time."""


class Stage(StrEnum):
    INGEST = "ingest"
    ADAPT = "adapt"
    SEARCH = "search"
    TRAIN = "train"
    EXPORT = "export"


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Images in each split."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class TrainWork:
    """Work of the train stage's parts, in their order."""

    measuring: float
    training: float
    head_training: float

    @property
    def total(self) -> float:
        return self.measuring + self.training + self.head_training

    @property
    def measured(self) -> float:
        """The share of the stage that is done once the memory is measured."""
        return self.measuring / self.total

    @property
    def trained(self) -> float:
        """The share of the stage that is done once the network to deliver is trained."""
        return (self.measuring + self.training) / self.total


def train_work(settings: JobSettings, sizes: SplitSizes) -> TrainWork:
    """In forward passes of one image, roughly."""
    return TrainWork(
        measuring=_MEASURING_PASSES,
        training=settings.epochs * (_TRAIN_PASS * sizes.train + sizes.val),
        head_training=settings.epochs * (_HEAD_PASS * sizes.train + sizes.val),
    )


def stage_work(settings: JobSettings, sizes: SplitSizes) -> dict[Stage, float]:
    """Work of each stage, in forward passes of one image, roughly."""
    return {
        Stage.INGEST: 0.5 * (sizes.train + sizes.val + sizes.test),
        Stage.ADAPT: _ADAPT_PASS * settings.adapt_steps * _ADAPT_BATCH,
        Stage.SEARCH: _search_work(settings, sizes),
        Stage.TRAIN: train_work(settings, sizes).total,
        Stage.EXPORT: 2.0 * sizes.test,
    }


def _search_work(settings: JobSettings, sizes: SplitSizes) -> float:
    of_trials = settings.trials * (sizes.val + 2.0 * _CALIBRATION_IMAGES)
    if settings.time_limit_seconds is None:
        return of_trials
    return min(of_trials, settings.time_limit_seconds * _PASSES_PER_SECOND)


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
