"""The process in which a job's stages run: `python -m service.child`, started by a worker.

It gets its order as one JSON line on standard input, and dies when that pipe closes.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from search.errors import SearchError
from service.database import Database
from service.errors import LeaseLostError, ServiceError
from service.jobs import Claim, fail_job
from service.lifeline import kill_own_group, on_parent_end
from service.settings import Settings
from tinytl.errors import CancelledError, TinyTLError

logger = logging.getLogger(__name__)


class Exit(IntEnum):
    """How a child ends. Any other code, or a signal, means that it died."""

    ENDED = 0
    """The job's row says how it ended."""
    STOPPED = 3
    """It was asked to stop and did; the job can go on later."""
    LEASE_LOST = 4
    """The job belongs to another attempt now."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a child is to do, and all that it needs to know for it."""

    settings: Settings
    claim: Claim

    def to_line(self) -> str:
        claim = {"job_id": self.claim.job_id, "attempt": self.claim.attempt}
        settings = self.settings.model_dump(mode="json")
        return json.dumps({"settings": settings, "claim": claim}) + "\n"

    @staticmethod
    def from_line(line: str) -> Order:
        order: dict[str, Any] = json.loads(line)
        return Order(
            settings=Settings.model_validate(order["settings"]),
            claim=Claim(**order["claim"]),
        )


RunJob = Callable[[Settings, Database, Claim, Callable[[], bool]], None]
"""Runs a job to its end: settings, database, claim, should_stop."""


def main(run_job: RunJob) -> Exit:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = Order.from_line(sys.stdin.readline())
    on_parent_end(sys.stdin, kill_own_group)
    database = Database(order.settings.resolved_database_url)
    try:
        return _run(run_job, order, database, stop)
    except LeaseLostError as error:
        logger.warning("%s", error)
        return Exit.LEASE_LOST
    finally:
        database.close()


def _run(run_job: RunJob, order: Order, database: Database, stop: threading.Event) -> Exit:
    try:
        run_job(order.settings, database, order.claim, stop.is_set)
    except CancelledError:
        return Exit.STOPPED
    except LeaseLostError:
        raise
    except Exception as error:
        if stop.is_set():  # what the job had started was asked to stop as well, and broke off
            return Exit.STOPPED
        if isinstance(error, TinyTLError | SearchError | ServiceError):
            message = str(error)
        else:  # a defect: the job ends, the log has the details
            logger.exception("job %s failed", order.claim.job_id)
            message = (
                f"unexpected {type(error).__name__}: {error}; the worker's log has the details"
            )
        fail_job(database, order.claim, message)
    return Exit.ENDED


if __name__ == "__main__":
    from service.pipeline import run_job

    sys.exit(main(run_job))
