"""The process in which a job's stages run: `python -m service.work.child`, started by a worker.

It gets its order as one JSON line on standard input, and dies when that pipe closes. Its standard
output is for beats: whoever runs a job asks should_stop at every step, and that tells the worker
that the job gets on. Where the steps are done elsewhere, their news are the beats.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import SearchError
from service.errors import (
    ClusterLostError,
    LeaseLostError,
    ServiceError,
    StoreUnavailableError,
    TaskLostError,
)
from service.logs import logged_with, set_up_logs
from service.record.claims import Claim, fail_job
from service.record.db.database import Database, is_outage
from service.settings import Settings
from service.work.processes.exits import Exit
from service.work.processes.lifeline import Beats, StopCheck, kill_own_group, on_parent_end
from tinytl.errors import CancelledError, TinyTLError

logger = logging.getLogger(__name__)

_STOP_NEWS_SECONDS = 0.3
"""A stop reaches what a job has started before it reaches the job, but not longer before."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a child is to do, and all that it needs to know for it."""

    settings: Settings
    claim: Claim
    worker: str = ""
    """Who gives it, for the log."""

    def to_line(self) -> str:
        claim = {"job_id": self.claim.job_id, "attempt": self.claim.attempt}
        settings = self.settings.model_dump(mode="json", exclude={"webhook_secret"})
        order = {"settings": settings, "claim": claim, "worker": self.worker}
        return json.dumps(order) + "\n"

    @staticmethod
    def from_line(line: str) -> Order:
        order: dict[str, Any] = json.loads(line)
        return Order(
            settings=Settings.model_validate(order["settings"]),
            claim=Claim(**order["claim"]),
            worker=order["worker"],
        )


RunJob = Callable[[Settings, Database, Claim, StopCheck], None]
"""Runs a job to its end."""


def main(run_job: RunJob) -> Exit:
    beats = Beats()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.from_line(sys.stdin.readline())
    set_up_logs(order.settings.log_format)
    on_parent_end(sys.stdin, kill_own_group)
    _stand_back(order.settings.job_niceness)

    database = Database(
        order.settings.resolved_database_url,
        patience_seconds=order.settings.database_patience_seconds,
    )
    with logged_with(job=order.claim.job_id, attempt=order.claim.attempt, worker=order.worker):
        try:
            run_job(order.settings, database, order.claim, StopCheck(stop, beats.beat))
        except Exception as error:
            return _end(error, database, order.claim, stop)
        finally:
            database.close()
    return Exit.ENDED


def _stand_back(niceness: int) -> None:
    """As a process and, where Linux schedules sessions against each other, as a session: there a
    process is nice to its own session only."""
    os.nice(niceness)
    with suppress(OSError):  # other systems have no such file
        Path("/proc/self/autogroup").write_text(str(niceness))


def _end(error: Exception, database: Database, claim: Claim, stop: threading.Event) -> Exit:
    """What becomes of a job that broke off."""
    if isinstance(error, CancelledError):
        return Exit.STOPPED
    if isinstance(error, LeaseLostError):
        logger.warning("%s", error)
        return Exit.LEASE_LOST
    if is_outage(error):
        logger.warning("the database does not answer: %s", outage_reason(error))
        return Exit.DATABASE_LOST
    if isinstance(error, ClusterLostError):
        logger.warning("%s", error)
        return Exit.CLUSTER_LOST
    if isinstance(error, StoreUnavailableError):
        logger.warning("%s", error)
        return Exit.STORE_LOST
    if stop.wait(_STOP_NEWS_SECONDS):  # what the job had started was asked to stop, and broke off
        return Exit.STOPPED
    if isinstance(error, TaskLostError):
        logger.warning("%s", error)
        return Exit.TASK_LOST
    if isinstance(error, TinyTLError | SearchError | ServiceError):
        message = str(error)
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        logger.error("job %s: the disk is full", claim.job_id, exc_info=error)
        message = (
            f"the disk of its worker ({socket.gethostname()}) is full; free some space, then "
            f"retry the job"
        )
    else:  # a defect: the job ends, the log has the details
        logger.error("job %s failed", claim.job_id, exc_info=error)
        message = f"unexpected {type(error).__name__}: {error}; the worker's log has the details"
    try:
        fail_job(database, claim, message)
    except Exception as failure:
        if isinstance(failure, LeaseLostError) or is_outage(failure):
            return _end(failure, database, claim, stop)
        raise
    return Exit.ENDED


def outage_reason(error: Exception) -> str:
    """One line for the log, without the statement that was sent."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


if __name__ == "__main__":
    from service.work.job.pipeline import run_job

    sys.exit(main(run_job))
