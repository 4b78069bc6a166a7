"""What each answer looks like, for the OpenAPI document. Made by the views themselves, so that
an example that does not fit its view does not import."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from search.supernets.registry import DEFAULT_SUPERNET
from service.contract.devices import PRESETS
from service.contract.requests import JobRequest, JobSettings, MethodChoice
from service.contract.status import EventKind, Outcome, Priority, Status
from service.settings import AUTO_SUPERNET
from service.views.device import DeviceTargetView, DeviceView
from service.views.evaluation import (
    ClassProbability,
    ClassView,
    EvaluationView,
    MistakeView,
    PredictionView,
)
from service.views.results import EndView, FrontPoint, FrontView
from service.views.schemas import (
    AttemptView,
    Check,
    ContactSheet,
    DatasetReport,
    DatasetView,
    EventView,
    Health,
    JobView,
    Readiness,
    SupernetProbe,
    SupernetView,
    TrialView,
    WebhookView,
)
from tinytl.description.method import Method, PeakMeaning

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
            fit="crop",
            crop_loss=0.05,
            contact_sheet=ContactSheet(classes={"circle": 6, "square": 6}, tile=72, columns=6),
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
        supernet=AUTO_SUPERNET,
        chosen_supernet=DEFAULT_SUPERNET,
        supernet_probes=[
            SupernetProbe(
                supernet=DEFAULT_SUPERNET, resolution=96, accuracy=0.8, standard_error=0.02
            )
        ],
        method=MethodChoice.AUTO,
        peak_meaning=PeakMeaning.PROCESS,
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
        method=Method.LITE_RESIDUAL_BIAS,
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
                method=Method.LITE_RESIDUAL_BIAS,
                lite_residual=_LITE_RESIDUAL,
                subnet=_SUBNET,
                validation_accuracy=0.5,
                standard_error=0.05,
                is_chosen=True,
            )
        ],
    )
)
EVALUATION = _plain(
    EvaluationView(
        headline="75.0% of 4 test images are right.",
        headline_accuracy=0.75,
        num_images=4,
        accuracy=0.75,
        balanced_accuracy=0.75,
        classes=[
            ClassView(name="cat", support=2, recall=0.5, precision=1.0),
            ClassView(name="dog", support=2, recall=1.0, precision=0.67),
        ],
        confusion=[[1, 1], [0, 2]],
        mistakes=[
            MistakeView(
                label="cat", predicted="dog", probability=0.8, image="data:image/jpeg;base64,..."
            )
        ],
    )
)
DEVICE_TRAINER = _plain(
    DeviceView(
        program_bytes=3_100_000,
        targets=[
            DeviceTargetView(
                target="aarch64-linux-musl",
                description="64-bit ARM: Raspberry Pi 3 and later",
                url=f"/jobs/{_JOB_ID}/device/aarch64-linux-musl",
                unavailable=None,
                binary_bytes=121_000,
                predicted_process_bytes=19_700_000,
            )
        ],
    )
)
PREDICTION = _plain(
    PredictionView(
        label="cat",
        probabilities=[
            ClassProbability(name="cat", probability=0.9),
            ClassProbability(name="dog", probability=0.1),
        ],
    )
)
WEBHOOK = _plain(
    WebhookView(url="https://example.com/tinyfit", delivered_at=_LATER, num_attempts=0, error=None)
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
DEVICE = _plain(PRESETS[0])
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
