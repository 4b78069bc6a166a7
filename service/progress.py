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


def stage_work(settings: JobSettings, sizes: SplitSizes) -> dict[Stage, float]:
    """Work of each stage, in forward passes of one image, roughly."""
    per_epoch = (_TRAIN_PASS + _HEAD_PASS) * sizes.train + 2.0 * sizes.val
    return {
        Stage.INGEST: 0.5 * (sizes.train + sizes.val + sizes.test),
        Stage.ADAPT: _ADAPT_PASS * settings.adapt_steps * _ADAPT_BATCH,
        Stage.SEARCH: settings.trials * (sizes.val + 2.0 * _CALIBRATION_IMAGES),
        Stage.TRAIN: settings.epochs * per_epoch + _MEASURING_PASSES,
        Stage.EXPORT: 2.0 * sizes.test,
    }


class Progress:
    """Turns "so much of this stage is done" into the job's progress, written now and then."""

    def __init__(self, work: dict[Stage, float], write: Callable[[Stage, float], None]) -> None:
        self._work = work
        self._total = sum(work.values())
        self._write = write
        self._last_write = float("-inf")
        self._last_stage: Stage | None = None

    def report(self, stage: Stage, done: float, total: float) -> None:
        now = time.monotonic()
        is_news = stage is not self._last_stage or done >= total
        if not is_news and now - self._last_write < _WRITE_EVERY_SECONDS:
            return
        before = sum(self._work[earlier] for earlier in list(Stage)[: list(Stage).index(stage)])
        share = min(1.0, done / total) if total else 1.0
        self._write(stage, (before + share * self._work[stage]) / self._total)
        self._last_write, self._last_stage = now, stage
