"""`tinyfit worker`: works on jobs until a signal ends it."""

from __future__ import annotations

import signal
import sys
import threading

from service.record.db.database import Database, ensure_schema
from service.record.files.blobs import check_artifact_url
from service.settings import Settings
from service.work.processes.lifeline import on_parent_end, stop_self
from service.work.worker import Worker


def work(settings: Settings, *, with_parent: bool) -> None:
    """Work until SIGTERM or SIGINT; with_parent: also end when standard input closes."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    if with_parent:
        on_parent_end(sys.stdin, stop_self)
    check_artifact_url(settings)
    ensure_schema(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    try:
        Worker(settings, database, stop=stop).run()
    finally:
        database.close()
