"""The worker: claims jobs one after another and runs each in a child process of its own."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from service.datasets.store import remove_stale_uploads
from service.errors import LeaseLostError, NotFoundError, ServiceError
from service.logs import logged_with
from service.record.claims import (
    Claim,
    claim_job,
    lose_job,
    release_job,
    renew_lease,
    stop_request,
)
from service.record.db.database import Database, is_outage
from service.record.jobs import get_job
from service.record.presence import mark_gone, mark_seen
from service.settings import Settings
from service.webhooks.sender import WebhookSender
from service.work.child import Order, outage_reason
from service.work.clearing_out import clear_out
from service.work.processes.child_process import ChildProcess
from service.work.processes.exits import Exit
from service.work.sweeping import sweep, tidy_job

logger = logging.getLogger(__name__)

CHILD_COMMAND = (sys.executable, "-m", "service.work.child")
_PRESENCE_SECONDS = 10.0
_SWEEP_SECONDS = 600.0
_OUTAGE_NEWS_SECONDS = 10.0
_STOP_SECONDS = 1.0
"""What a job's process gets to stop when its owner wants it to, before it is killed."""
_RENEWALS_PER_LEASE = 5
_CLUSTER_PAUSE_SECONDS = 5.0


class Worker:
    """Works until `stop` is set; then the job at hand goes back into the queue as it stands."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        stop: threading.Event,
        command: Sequence[str] = CHILD_COMMAND,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._settings = settings
        self._database = database
        self._stop = stop
        self._command = command
        self._says_it_is_up = _Timer(_PRESENCE_SECONDS)
        self._sweeps = _Timer(_SWEEP_SECONDS)
        self._tells_of_outages = _Timer(_OUTAGE_NEWS_SECONDS)

    def run(self) -> None:
        with logged_with(worker=self.name):
            self._run()

    def _run(self) -> None:
        logger.info("worker %d waits for jobs", os.getpid())
        WebhookSender(self._settings, self._database, self._stop).start()
        while not self._stop.is_set():
            self._sweep_if_due()
            worked = False
            with self._outages_passed_over():
                self._say_it_is_up()
                worked = self.run_one()
            if not worked:
                self._stop.wait(self._settings.poll_seconds)
        self.leave()

    def leave(self) -> None:
        """Say that this worker is gone."""
        with self._outages_passed_over():
            mark_gone(self._database, self.id)

    def run_one(self) -> bool:
        """Claim a job and work on it until it ends or this worker stops; False without a job."""
        claim = claim_job(
            self._database,
            worker=self.name,
            lease_seconds=self._settings.lease_seconds,
            max_lost_attempts=self._settings.max_lost_attempts,
        )
        if claim is None:
            return False
        with logged_with(job=claim.job_id, attempt=claim.attempt):
            logger.info("job %s, attempt %d", claim.job_id, claim.attempt)
            try:
                self._settle(self._work_on(claim))
            except LeaseLostError:
                logger.warning("job %s is no longer this worker's", claim.job_id)
            self._tidy(lambda: tidy_job(self._settings, self._database, claim.job_id))
        return True

    def _work_on(self, claim: Claim) -> Callable[[], None]:
        """Run the job's process to its end; return what is to be written then."""
        order = Order(settings=self._settings, claim=claim, worker=self.name)
        child = ChildProcess(self._command, order.to_line())
        try:
            return self._watch(child, claim)
        finally:
            child.kill()

    def _watch(self, child: ChildProcess, claim: Claim) -> Callable[[], None]:
        """Renew the lease for as long as the child gets on."""
        renewal = _Timer(self._settings.lease_seconds / _RENEWALS_PER_LEASE)
        while (code := child.wait(self._settings.poll_seconds)) is None:
            if self._stop.is_set():
                child.stop(self._settings.stop_grace_seconds)
                return lambda: release_job(self._database, claim)
            silent_seconds = child.silent_seconds()
            if silent_seconds > self._settings.stall_seconds:
                logger.error(
                    "the process of job %s has got no further for %.0f s and is killed",
                    *(claim.job_id, silent_seconds),
                )
                return lambda: self._lose(claim)
            with self._outages_passed_over():  # meanwhile nobody can take the job either
                try:
                    if stop_request(self._database, claim) is not None:
                        child.stop(_STOP_SECONDS)
                        return lambda: release_job(self._database, claim)
                    if renewal.is_due():
                        renew_lease(
                            self._database, claim, lease_seconds=self._settings.lease_seconds
                        )
                except LeaseLostError:
                    if not self._is_ended(claim):
                        raise
                    # by the child, which is about to exit
                self._say_it_is_up()
        if code in (Exit.ENDED, Exit.LEASE_LOST):
            return lambda: None
        logger.error("the process of job %s ended with code %d", claim.job_id, code)
        if code in (Exit.DATABASE_LOST, Exit.STORE_LOST):
            return lambda: release_job(self._database, claim)
        if code == Exit.CLUSTER_LOST:
            return lambda: self._release_and_wait(claim)
        return lambda: self._lose(claim)

    def _release_and_wait(self, claim: Claim) -> None:
        """For other jobs it would be the same, as long as the cluster is gone."""
        release_job(self._database, claim)
        self._stop.wait(_CLUSTER_PAUSE_SECONDS)

    def _is_ended(self, claim: Claim) -> bool:
        try:
            job = get_job(self._database, claim.job_id)
        except NotFoundError:
            return False
        return job.attempt == claim.attempt and job.status.is_final

    def _lose(self, claim: Claim) -> None:
        lose_job(self._database, claim, max_lost_attempts=self._settings.max_lost_attempts)

    def _settle(self, write: Callable[[], None]) -> None:
        """Write how an attempt ended, again and again while the database is out.

        One that was written although nobody heard of it is fenced the second time. A worker that
        is to end does not wait for ever: its lease runs out.
        """
        deadline = float("inf")
        while True:
            with self._outages_passed_over():
                write()
                return
            if self._stop.wait(self._settings.poll_seconds):
                deadline = min(deadline, time.monotonic() + self._settings.stop_grace_seconds)
                if time.monotonic() >= deadline:
                    return
                time.sleep(self._settings.poll_seconds)

    def _sweep_if_due(self) -> None:
        if self._sweeps.is_due():
            self._tidy(lambda: sweep(self._settings, self._database))
            self._tidy(lambda: clear_out(self._settings, self._database))
            self._tidy(lambda: remove_stale_uploads(self._settings))

    def _tidy(self, tidy: Callable[[], None]) -> None:
        """What can't be tidied now is no reason to stop working: a later sweep does it."""
        with self._outages_passed_over():
            try:
                tidy()
            except (OSError, ServiceError) as error:
                logger.warning("can't tidy up: %s", error)

    def _say_it_is_up(self) -> None:
        if self._says_it_is_up.is_due():
            mark_seen(self._database, self.id, self.name)

    @contextmanager
    def _outages_passed_over(self) -> Iterator[None]:
        """What breaks off for want of the database is left as it is."""
        try:
            yield
        except Exception as error:
            if not is_outage(error):
                raise
            if self._tells_of_outages.is_due():
                reason = outage_reason(error)
                logger.warning("the database does not answer, trying again: %s", reason)


class _Timer:
    """Due at once, and then every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = float("-inf")

    def is_due(self) -> bool:
        time_now = time.monotonic()
        if time_now - self._last < self._seconds:
            return False
        self._last = time_now
        return True
