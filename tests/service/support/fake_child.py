"""A child whose job does what its name says, without any training. Run by test_worker.py."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.errors import ClusterLostError, InputError, TaskLostError
from service.record.claims import Claim, set_progress, succeed_job
from service.record.db.database import Database
from service.record.jobs import get_job
from service.settings import Settings
from service.work.child import main
from tinytl.errors import CancelledError


def run_job(
    settings: Settings, database: Database, claim: Claim, should_stop: Callable[[], bool]
) -> None:
    what = get_job(database, claim.job_id).name
    if what == "refuse":
        raise InputError("no such luck")
    if what == "crash":
        raise RuntimeError("a defect")
    if what == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "outage" and claim.attempt == 1:
        raise OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)
    if what == "adrift" and claim.attempt == 1:
        raise ClusterLostError("the Ray cluster is lost")
    if what == "bereft":
        raise TaskLostError("a process of the pool died")
    if what == "midst" and claim.attempt == 1:
        with database.writing() as session:
            session.execute(text("SELECT 1"))
            midst = settings.data_dir / "midst"
            midst.touch()
            while midst.exists():
                time.sleep(0.02)
            session.execute(text("SELECT 1"))
    if what == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    steps = settings.data_dir / f"{claim.job_id}.steps"
    grandchild = note_pids(settings.data_dir)
    if what == "fragile":
        grandchild.wait()
        raise InputError("what it had started broke off")
    if what == "stall":
        time.sleep(60)
    for step in range(len(steps.read_text()) if steps.exists() else 0, 4 if what == "slow" else 1):
        if should_stop():
            raise CancelledError("asked to")
        time.sleep(0.3)
        with steps.open("a") as file:
            file.write(str(step))
        set_progress(database, claim, stage="train", progress=(step + 1) / 4, seconds_left=None)
    while what in ("endless", "ignore"):
        if should_stop() and what == "endless":
            raise CancelledError("asked to")
        time.sleep(0.02)
    succeed_job(database, claim, {})


def note_pids(directory: Path) -> "subprocess.Popen[bytes]":
    """Start a grandchild that would outlive everything, and write both process ids down."""
    grandchild = subprocess.Popen(["sleep", "60"])
    partial = directory / f"pids.{os.getpid()}"
    partial.write_text(f"{os.getpid()} {grandchild.pid}")
    partial.rename(directory / "pids")
    return grandchild


if __name__ == "__main__":
    sys.exit(main(run_job))
