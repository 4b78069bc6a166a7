"""What tests of real processes share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FAKE_CHILD = (sys.executable, str(Path(__file__).with_name("fake_child.py")))
HELD_CHILD = (sys.executable, str(Path(__file__).with_name("held_child.py")))
RUN_WORKER = """
import signal, sys, threading
from service.logs import set_up_logs
from service.record.db.database import Database
from service.settings import Settings
from service.work.worker import Worker
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
settings = Settings.model_validate_json(sys.argv[1])
set_up_logs(settings.log_format)
database = Database(settings.resolved_database_url)
Worker(settings, database, stop=stop, command=sys.argv[2:]).run()
"""


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it may end while it is looked at
        return False
    return state != "Z"


def descendants(pid: int) -> list[int]:
    """Process ids of the children of a process, their children, and so on."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found
