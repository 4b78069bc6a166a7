"""Where jobs stand, and what happens to them: the words that record and users share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

JsonObject = dict[str, Any]


class Status(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class Priority(StrEnum):
    """Which queued jobs are taken first, the oldest of a kind before the others."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class StopRequest(StrEnum):
    """What a running job's owner wants of its worker."""

    CANCEL = "cancel"
    PAUSE = "pause"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    RELEASED = "released"
    """Its worker stopped in good order; the job is queued again."""
    LOST = "lost"
    """Its worker or process died."""


class EventKind(StrEnum):
    """What an event tells, and what its `detail` holds.

    - `status`: `status`, `error` (where failed), `worker` (where running)
    - `request`: `request`, what its worker has been asked to do (`cancel`, `pause`); null where
      that is taken back
    - `stage`: `stage`, which begins
    - `trial`: `number`, `resolution`, `predicted_peak_bytes`, `lean_peak_bytes`, `macs`,
      `validation_accuracy`, `num_images`, `is_complete`
    - `epoch`: `training` (`tinytl`; jobs of earlier versions have `head_only`, too), `epoch`,
      `num_epochs`, `train_loss`, `val_accuracy` (null where the validation images are trained on),
      `seconds`
    - `log`: `message`
    """

    STATUS = "status"
    REQUEST = "request"
    STAGE = "stage"
    TRIAL = "trial"
    EPOCH = "epoch"
    LOG = "log"
