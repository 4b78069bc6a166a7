"""How a job's process ends, as it tells its worker."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Any other code, or a signal, means that it died."""

    ENDED = 0
    """The job's row says how it ended."""
    STOPPED = 3
    """It was asked to stop and did; the job can go on later."""
    LEASE_LOST = 4
    """The job belongs to another attempt now."""
    DATABASE_LOST = 5
    """The database did not answer; the job can go on once it does."""
    CLUSTER_LOST = 6
    """The Ray cluster did not answer; the job can go on once it does."""
    TASK_LOST = 7
    """What it had started died: as if it had died itself."""
    STORE_LOST = 8
    """The artifact store did not answer; the job can go on once it does."""
