"""A worker's usual child, but in the stage that a file names it stands still, to be killed there.

The file `hold` in the data folder holds stages, one a line; the child that stands still takes its
line away and writes its process id to `held`.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from service.record.claims import Claim
from service.record.database import Database
from service.settings import Settings
from service.work.child import main
from service.work.pipeline import run_job
from service.work.progress import Progress, Stage

_SHARE = {Stage.TRAIN: 0.3, Stage.EXPORT: 0.0}
"""From where on of a stage; training begins with a measurement."""


def run_held(
    settings: Settings, database: Database, claim: Claim, should_stop: Callable[[], bool]
) -> None:
    hold, held = settings.data_dir / "hold", settings.data_dir / "held"
    usual = Progress.report

    def report(self: Progress, stage: Stage, done: float, total: float) -> None:
        usual(self, stage, done, total)
        stages = hold.read_text().split() if hold.exists() else []
        if stages[:1] == [stage.value] and done >= _SHARE.get(stage, 0.5) * total:
            hold.write_text("\n".join(stages[1:]))
            stand_still(held)

    Progress.report = report  # type: ignore[method-assign]
    run_job(settings, database, claim, should_stop)


def stand_still(held: Path) -> None:
    partial = held.with_suffix(".partial")
    partial.write_text(str(os.getpid()))
    partial.rename(held)
    while held.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(run_held))
