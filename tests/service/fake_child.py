"""A child whose job does what its name says, without any training. Run by test_worker.py."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from service.child import main
from service.database import Database
from service.errors import InputError
from service.jobs import Claim, get_job, set_progress, succeed_job
from service.settings import Settings
from tinytl.errors import CancelledError


def run_job(
    settings: Settings, database: Database, claim: Claim, should_stop: Callable[[], bool]
) -> None:
    what = get_job(database, claim.job_id).name
    if what == "refuse":
        raise InputError("no such luck")
    if what == "crash":
        raise RuntimeError("a defect")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    steps = settings.data_dir / f"{claim.job_id}.steps"
    note_pids(settings.data_dir)
    for step in range(len(steps.read_text()) if steps.exists() else 0, 4 if what == "slow" else 1):
        if should_stop():
            raise CancelledError("asked to")
        time.sleep(0.3)
        with steps.open("a") as file:
            file.write(str(step))
        set_progress(database, claim, stage="train", progress=(step + 1) / 4)
    while what in ("endless", "ignore"):
        if should_stop():
            raise CancelledError("asked to")
        time.sleep(0.02)
    succeed_job(database, claim, {})


def note_pids(directory: Path) -> None:
    """Start a grandchild that would outlive everything, and write both process ids down."""
    grandchild = subprocess.Popen(["sleep", "60"])
    partial = directory / f"pids.{os.getpid()}"
    partial.write_text(f"{os.getpid()} {grandchild.pid}")
    partial.rename(directory / "pids")


if __name__ == "__main__":
    sys.exit(main(run_job))
