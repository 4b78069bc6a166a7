"""What each answer looks like, for the OpenAPI document. Made by the views themselves, so that
an example that does not fit its view does not import."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from search.registry import DEFAULT_SUPERNET
from service.record.models import EventKind, Outcome, Priority, Status
from service.results import EndView, FrontPoint, FrontView
from service.schemas import (
    AttemptView,
    Check,
    DatasetReport,
    DatasetView,
    EventView,
    Health,
    JobRequest,
    JobSettings,
    JobView,
    Readiness,
    SupernetView,
    TrialView,
)
from tinytl.trainable import Method

_BEGAN = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
_LATER = datetime(2026, 1, 31, 12, 3, 20, tzinfo=UTC)
_JOB_ID = "4f1d2c3b5a694787a6b5c4d3e2f10918"
_DATASET_ID = "9b2c" * 16
_SUBNET = {"kernel_sizes": [3], "expand_ratios": [3], "depths": [2]}
_LITE_RESIDUAL = {"groups": 2, "max_kernel_size": 5, "expand": 1.0}


def _plain(view: BaseModel) -> Any:
    return view.model_dump(mode="json")


DATASET = _plain(
    DatasetView(
        id=_DATASET_ID,
        name="shapes",
        classes=["circle", "square"],
        counts={"train": {"circle": 40, "square": 40}, "test": {"circle": 10, "square": 10}},
        num_images=100,
        bytes=250_000,
        report=DatasetReport(
            formats={"PNG": 100},
            smallest_image=(96, 96),
            largest_image=(640, 480),
            ignored_files=1,
            notes=["There is no val split; it is taken from the training images."],
        ),
        created_at=_BEGAN,
    )
)
JOB_REQUEST = JobRequest(
    dataset=_DATASET_ID, memory_limit=24_000_000, settings=JobSettings(horizontal_flip=False)
).model_dump(mode="json") | {"memory_limit": "24MB"}
JOB = _plain(
    JobView(
        id=_JOB_ID,
        name="job 4f1d2c3b",
        status=Status.RUNNING,
        stage="search",
        progress=0.25,
        stop_request=None,
        attempt=1,
        created_at=_BEGAN,
        started_at=_BEGAN,
        finished_at=None,
        estimated_finish_at=_LATER,
        dataset=_DATASET_ID,
        memory_limit_bytes=24_000_000,
        supernet=DEFAULT_SUPERNET,
        method=Method.LITE_RESIDUAL_BIAS,
        priority=Priority.NORMAL,
        settings=JobSettings(),
        result=None,
        error=None,
    )
)
TRIAL = _plain(
    TrialView(
        number=0,
        subnet=_SUBNET,
        resolution=64,
        lite_residual=_LITE_RESIDUAL,
        plan={"batch_size": 8},
        predicted_peak_bytes=20_000_000,
        lean_plan={"batch_size": 8},
        lean_peak_bytes=12_000_000,
        macs=9_000_000,
        validation_accuracy=0.5,
        standard_error=0.05,
        validation_loss=1.4,
        num_images=100,
        is_complete=True,
        reused=False,
        seconds=1.5,
        finished_at=_LATER,
    )
)
FRONT = _plain(
    FrontView(
        limit_bytes=24_000_000,
        mac_limit=None,
        smallest=EndView(peak_bytes=4_300_000, macs=3_100_000, resolution=48),
        largest=EndView(peak_bytes=31_000_000, macs=41_000_000, resolution=96),
        points=[
            FrontPoint(
                trial=0,
                peak_bytes=12_000_000,
                plan={"batch_size": 8},
                slowdown=1.6,
                macs=9_000_000,
                resolution=64,
                lite_residual=_LITE_RESIDUAL,
                subnet=_SUBNET,
                validation_accuracy=0.5,
                standard_error=0.05,
                is_chosen=True,
            )
        ],
    )
)
ATTEMPT = _plain(
    AttemptView(
        number=1, worker="host:4711", started_at=_BEGAN, ended_at=_LATER, outcome=Outcome.LOST
    )
)
_EVENT = EventView(
    number=3, kind=EventKind.STAGE, detail={"stage": "search"}, attempt=1, created_at=_LATER
)
EVENT = _plain(_EVENT)
EVENT_STREAM = format_sse_event(
    data_str=_EVENT.model_dump_json(), event=_EVENT.kind.value, id=str(_EVENT.number)
).decode()
SUPERNET = _plain(
    SupernetView(id=DEFAULT_SUPERNET, source="bundled", bytes=1_000_000, cached=True)
)
HEALTH = _plain(Health())
READINESS = _plain(
    Readiness(
        status="ready",
        checks=[
            Check(name="database", ok=True, detail="it answers"),
            Check(name="workers", ok=True, detail="none has been seen; jobs wait for one"),
        ],
    )
)
METRICS = 'tinyfit_jobs{status="queued"} 2.0\n'
