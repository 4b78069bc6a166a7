"""The worker: claims jobs one after another and runs each in a child process of its own."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sqlalchemy.exc import OperationalError

from service.artifacts import BUNDLE, remove_leftovers
from service.child import Exit, Order
from service.database import Database
from service.errors import LeaseLostError
from service.jobs import (
    Claim,
    cancel_job,
    claim_job,
    get_artifact,
    get_job,
    release_job,
    renew_lease,
)
from service.lifeline import torch_environment
from service.settings import Settings

logger = logging.getLogger(__name__)

CHILD_COMMAND = (sys.executable, "-m", "service.child")


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
        self._settings = settings
        self._database = database
        self._stop = stop
        self._command = command

    def run(self) -> None:
        logger.info("worker %d waits for jobs", os.getpid())
        while not self._stop.is_set():
            try:
                worked = self.run_one()
            except OperationalError as error:
                logger.warning("the database does not answer, trying again: %s", error)
                worked = False
            if not worked:
                self._stop.wait(self._settings.poll_seconds)

    def run_one(self) -> bool:
        """Claim a job and work on it until it ends or this worker stops; False without a job."""
        claim = claim_job(
            self._database,
            lease_seconds=self._settings.lease_seconds,
            max_lost_attempts=self._settings.max_lost_attempts,
        )
        if claim is None:
            return False
        logger.info("job %s, attempt %d", claim.job_id, claim.attempt)
        with suppress(LeaseLostError):
            if claim.cancel_requested:
                cancel_job(self._database, claim)
            else:
                self._work_on(claim)
        self._tidy(claim.job_id)
        return True

    def _tidy(self, job_id: str) -> None:
        """A job that has ended keeps its bundle and nothing else."""
        if get_job(self._database, job_id).status.is_final:
            bundle = get_artifact(self._database, job_id, BUNDLE)
            remove_leftovers(self._settings, job_id, keep=bundle)

    def _work_on(self, claim: Claim) -> None:
        order = Order(settings=self._settings, claim=claim)
        child = _Child(self._command, order.to_line())
        try:
            settle = self._watch(child, claim)
        except LeaseLostError:
            logger.warning("lost job %s to another worker", claim.job_id)
            raise
        finally:
            child.kill()
        settle()

    def _watch(self, child: _Child, claim: Claim) -> Callable[[], None]:
        """Renew the lease while the child runs; return what is to be written once it is gone."""
        renewed = time.monotonic()
        while (code := child.wait(self._settings.poll_seconds)) is None:
            if self._stop.is_set():
                child.stop(self._settings.stop_grace_seconds)
                return lambda: release_job(self._database, claim)
            try:
                wants_cancel = renew_lease(
                    self._database, claim, lease_seconds=self._settings.lease_seconds
                )
                renewed = time.monotonic()
            except LeaseLostError:
                if self._is_ended(claim):
                    continue  # by the child, which is about to exit
                raise
            except OperationalError:
                if time.monotonic() - renewed > self._settings.lease_seconds:
                    raise
                continue
            if wants_cancel:
                child.stop(self._settings.stop_grace_seconds)
                return lambda: cancel_job(self._database, claim)
        if code in (Exit.ENDED, Exit.LEASE_LOST):
            return lambda: None
        logger.error("the process of job %s ended with code %d", claim.job_id, code)
        return lambda: release_job(self._database, claim, lost=True)

    def _is_ended(self, claim: Claim) -> bool:
        job = get_job(self._database, claim.job_id)
        return job.attempt == claim.attempt and job.status.is_final


class _Child:
    """A process in its own group that ends with this one, however this one ends."""

    def __init__(self, command: Sequence[str], order: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
            text=True,
            env=torch_environment(),
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(order)
            self._process.stdin.flush()

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace_seconds: float) -> None:
        """Ask the group to stop and give it time to."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self.wait(grace_seconds)

    def kill(self) -> None:
        """Whatever is left of the group ends now."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
