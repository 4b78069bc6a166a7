"""Tells of ended jobs, beside whatever else a worker does."""

from __future__ import annotations

import json
import logging
import threading
import time

from service.record.db.database import Database, is_outage
from service.record.webhooks import Due, settle_webhook, take_due_webhook
from service.settings import Settings
from service.signing import key_of
from service.views.schemas import JobView
from service.webhooks.sending import post

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


class WebhookSender(threading.Thread):
    """Until `stop` is set. Several may run, in any number of processes: each delivery is one's."""

    def __init__(self, settings: Settings, database: Database, stop: threading.Event) -> None:
        super().__init__(name="webhooks", daemon=True)
        self._settings, self._database, self._stopping = settings, database, stop

    def run(self) -> None:
        if self._settings.webhook_secret is None:
            return
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                while not self._stopping.is_set() and deliver_one(self._settings, self._database):
                    pass
            except Exception as error:
                if not is_outage(error):
                    logger.exception("webhooks are not sent for now")


def deliver_one(settings: Settings, database: Database) -> bool:
    """Try one that is due; False where none is."""
    assert settings.webhook_secret is not None
    due = take_due_webhook(database)
    if due is None:
        return False
    problem = post(
        due.url,
        _body_of(due),
        webhook_id=due.id,
        timestamp=int(time.time()),
        key=key_of(settings.webhook_secret.get_secret_value()),
        allow_private=settings.webhook_allow_private,
    )
    if problem is not None:
        logger.warning("webhook of job %s, try %d: %s", due.job.id, due.attempt, problem)
    settle_webhook(database, due, problem)
    return True


def _body_of(due: Due) -> bytes:
    job = JobView.of(due.job).model_dump(mode="json")
    ended_at = job["finished_at"]
    return json.dumps({"type": "job.ended", "timestamp": ended_at, "data": job}).encode()
