"""The owners of jobs: they post, pause, resume, cancel, retry and delete them, over HTTP."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from http import HTTPStatus
from typing import Any

from benchmarks.faults.service import RefusedError, Service, two_classes

FINAL = ("succeeded", "failed", "cancelled")
_PAUSE_SECONDS = 3.0


class Owners:
    """What they have done, and which jobs are to end with a result."""

    def __init__(self, service: Service, rng: random.Random) -> None:
        self._service = service
        self._rng = rng
        archive = {"file": ("shapes.zip", two_classes(), "application/zip")}
        self._dataset = service.ask("POST", "/datasets", files=archive)["id"]
        self._paused_until: dict[str, float] = {}
        self._num_posted = 0
        self.kinds: dict[str, int] = {}
        """Of the jobs that are to succeed."""
        self.deleted: set[str] = set()
        self.actions: Counter[str] = Counter()

    def post(self) -> None:
        kind = self._num_posted % 2
        job = self._service.ask(
            "POST",
            "/jobs",
            json=_job(self._dataset, kind, self._rng.choice(("high", "normal", "low"))),
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        self._num_posted += 1
        self.kinds[job["id"]] = kind
        self.actions["posted"] += 1

    def act(self) -> None:
        """Do something with a job at random."""
        job_id = self._rng.choice(list(self.kinds))
        wish = self._rng.choice(("pause", "cancel", "delete"))
        if wish == "delete":
            self._delete(job_id)
        elif self._ask("POST", job_id, wish) and wish == "pause":
            self._paused_until[job_id] = time.monotonic() + _PAUSE_SECONDS

    def look_after(self, jobs: list[dict[str, Any]], *, everything: bool = False) -> int:
        """Go on with what was paused, failed or cancelled; the number of jobs that are to end."""
        for job_id, until in list(self._paused_until.items()):
            if everything or time.monotonic() >= until:
                del self._paused_until[job_id]
                self._ask("POST", job_id, "resume")
        for job in jobs:
            if job["status"] == "failed":
                self._ask("POST", job["id"], "retry")
            elif job["status"] == "cancelled":
                if self._rng.random() < 0.5:
                    self._delete(job["id"])
                else:
                    self._ask("POST", job["id"], "retry")
            elif job["status"] == "paused" and everything:
                self._ask("POST", job["id"], "resume")
        return sum(job["status"] != "succeeded" for job in jobs)

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._service.ask("GET", "/jobs", params={"limit": 1_000})
        return found

    def _delete(self, job_id: str) -> None:
        try:
            self._service.ask("DELETE", f"/jobs/{job_id}")
        except RefusedError as refused:
            if (
                refused.args[0] != HTTPStatus.NOT_FOUND
            ):  # else the answer to an earlier try was lost
                return
        self.kinds.pop(job_id, None)
        self._paused_until.pop(job_id, None)
        self.deleted.add(job_id)
        self.actions["deleted"] += 1

    def _ask(self, method: str, job_id: str, wish: str) -> bool:
        try:
            self._service.ask(method, f"/jobs/{job_id}/{wish}")
        except RefusedError:  # it has come too far meanwhile
            return False
        self.actions[f"asked to {wish}"] += 1
        return True


def _job(dataset: str, kind: int, priority: str) -> dict[str, Any]:
    settings = {
        "trials": 2,
        "epochs": 1,
        "adapt_steps": 4,
        "resolutions": [32],
        "seed": kind,
        "reuse": False,  # so that equal jobs are equal
    }
    return {
        "dataset": dataset,
        "name": f"kind {kind}",
        "memory_limit": "6MB",
        "priority": priority,
        "settings": settings,
    }
