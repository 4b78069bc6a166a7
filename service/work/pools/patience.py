"""How long a job's process waits for a cluster."""

from __future__ import annotations

import logging
import os
import threading
import time

from service.work.processes.exits import Exit

logger = logging.getLogger(__name__)


class Patience:
    """Ends this process where a cluster does not answer for so long.

    From a thread, as the calls to a cluster that is gone may never return. It is over while
    nothing is asked of the cluster.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = float("inf")
        self._is_over = threading.Event()
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    def renew(self) -> None:
        """The cluster has answered, or is about to be asked."""
        self._deadline = time.monotonic() + self._seconds

    def rest(self) -> None:
        """Nothing is asked of the cluster now."""
        self._deadline = float("inf")

    def end(self) -> None:
        self._is_over.set()

    def _watch(self) -> None:
        while not self._is_over.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() > self._deadline:
                logger.error("the Ray cluster has not answered for %g s", self._seconds)
                os._exit(Exit.CLUSTER_LOST)
