"""A worker's usual child, but in the stage that a file names it stands still, to be killed there,
and it trusts what is predicted, where the usual one measures in a process of its own.

The file `hold` in the data folder holds stages, one a line; the child that stands still takes its
line away and writes its process id to `held`.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from service.record.claims import Claim
from service.record.db.database import Database
from service.settings import Settings
from service.work.child import main
from service.work.job import stages
from service.work.job.pipeline import run_job
from service.work.job.progress import Progress, Stage
from tinytl.accounting.memory import peak_memory
from tinytl.description.config import NetworkConfig
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.engine.layers import WeightBits
from tinytl.measurement.measure import Measurement

_SHARE = {Stage.TRAIN: 0.3, Stage.EXPORT: 0.0}
"""From where on of a stage; training begins with the measurement."""


def run_held(
    settings: Settings, database: Database, claim: Claim, should_stop: Callable[[], bool]
) -> None:
    hold, held = settings.data_dir / "hold", settings.data_dir / "held"
    usual = Progress.report

    def report(self: Progress, stage: Stage, done: float, total: float) -> None:
        usual(self, stage, done, total)
        named = hold.read_text().split() if hold.exists() else []
        if named[:1] == [stage.value] and done >= _SHARE.get(stage, 0.5) * total:
            hold.write_text("\n".join(named[1:]))
            stand_still(held)

    Progress.report = report  # type: ignore[method-assign]
    stages.measure_in_fresh_process = predict_measurement
    run_job(settings, database, claim, should_stop)


def predict_measurement(
    network: NetworkConfig,
    method: Method,
    plan: Plan,
    resolution: int,
    *,
    scratch: Path | None = None,
    image_size: int | None = None,
    weight_bits: WeightBits = 8,
    on_step: Callable[[], None] = lambda: None,
) -> Measurement:
    """Stands in for tinytl.measurement.measure.measure_in_fresh_process: it takes what is
    predicted."""
    on_step()
    predicted = peak_memory(
        network, method, plan, resolution, image_size=image_size, frozen_bits=weight_bits
    )
    return Measurement(
        predicted_peak_bytes=predicted.total_bytes,
        measured_peak_bytes=predicted.total_bytes,
        storage_peak_bytes=predicted.total_bytes,
        rss_growth_bytes=None,
        process_peak_bytes=None,
        step_seconds=0.1,
        breakdown_bytes=predicted.breakdown,
    )


def stand_still(held: Path) -> None:
    partial = held.with_suffix(".partial")
    partial.write_text(str(os.getpid()))
    partial.rename(held)
    while held.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(run_held))
