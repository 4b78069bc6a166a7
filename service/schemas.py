"""What users send and get, over HTTP and from the command line alike."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from search.registry import DEFAULT_SUPERNET, Source, SupernetInfo
from service.record.models import (
    Artifact,
    Attempt,
    Dataset,
    Event,
    EventKind,
    Job,
    JsonObject,
    Outcome,
    Status,
    StopRequest,
    Trial,
)
from tinytl.trainable import Method
from tinytl.units import parse_size

_MAX_SIZE_BYTES = 10**15
_MAX_SIZE_TEXT = 40


def _parse_size(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError('expected bytes as a number, or text such as "24MB"')
    if len(str(given)) > _MAX_SIZE_TEXT:
        raise ValueError(f"expected at most {_MAX_SIZE_TEXT} characters")
    return parse_size(str(given))


Size = Annotated[
    int,
    BeforeValidator(_parse_size),
    Field(le=_MAX_SIZE_BYTES),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _MAX_SIZE_BYTES},
                {"type": "string", "examples": ["24MB"], "maxLength": _MAX_SIZE_TEXT},
            ]
        }
    ),
]
"""Bytes, or text such as "24MB"."""


def _check_line(given: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in given):
        raise ValueError("expected one line of text, without control characters")
    return given


Line = Annotated[str, AfterValidator(_check_line)]
"""Text that every database can hold and every log can show."""


class JobSettings(BaseModel):
    """How a job is carried out. The same settings on the same data give the same result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=24, ge=1, le=10_000)
    """Candidates that the search scores."""
    epochs: int = Field(default=10, ge=1, le=1_000)
    """Of the final training, on the device's terms."""
    adapt_steps: int = Field(default=200, ge=1, le=1_000_000)
    """Of the supernet's adaptation to the dataset, before the search."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    batch_size: int = Field(default=8, ge=1, le=1_024)
    resolutions: tuple[int, ...] = Field(default=(48, 64, 80, 96), min_length=1, max_length=32)
    """Image sides that may be chosen, in pixels, rising."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """None: the method's own."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    horizontal_flip: bool = True
    """Whether a mirrored image shows the same class; false for text and digits."""
    min_crop_scale: float = Field(default=0.5, gt=0, le=1)
    """Smallest part of an image's area that a random training crop shows."""


class JobRequest(BaseModel):
    """The body of POST /jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Line = Field(max_length=100)
    """Id of an uploaded dataset."""
    memory_limit: Size
    name: Line = Field(default="", max_length=200)
    method: Method = Method.LITE_RESIDUAL_BIAS
    supernet: Line = Field(default=DEFAULT_SUPERNET, min_length=1, max_length=500)
    settings: JobSettings = JobSettings()


class DatasetReport(BaseModel):
    """What was found in an upload."""

    formats: dict[str, int]
    """Images per file format: {"JPEG": 120, ...}."""
    smallest_image: tuple[int, int]
    """Width and height of the image with the fewest pixels."""
    largest_image: tuple[int, int]
    ignored_files: int
    """Junk of operating systems, left out."""
    notes: list[str]
    """Sentences on what to know or to mend, such as missing splits and small classes."""


class DatasetView(BaseModel):
    id: str
    name: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    num_images: int
    bytes: int
    report: DatasetReport | None
    """None for a dataset of an earlier version."""
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetView:
        return cls(
            id=dataset.id,
            name=dataset.name,
            classes=dataset.classes,
            counts=dataset.counts,
            num_images=dataset.num_images,
            bytes=dataset.num_bytes,
            report=DatasetReport.model_validate(dataset.report) if dataset.report else None,
            created_at=_time(dataset.created_at),
        )


class CheckpointView(BaseModel):
    """The bundle of a finished job."""

    url: str
    bytes: int
    sha256: str


class MemoryView(BaseModel):
    """What the delivered training takes at its peak, in bytes."""

    breakdown_bytes: dict[str, int]
    """The predicted peak, by part; sums to `predicted_peak_bytes`."""
    storage_peak_bytes: int
    """Measured: live tensors, temporaries inside operators excepted."""


class JobResult(BaseModel):
    """What a finished job delivers. Bytes are peaks of a whole training step."""

    subnet: JsonObject
    resolution: int
    plan: JsonObject
    predicted_peak_bytes: int
    measured_peak_bytes: int
    validation_accuracy: float
    test_accuracy: float
    head_only_test_accuracy: float
    """Of the same subnet with nothing trained but its head, for as many epochs."""
    trials: int
    memory: MemoryView | None = None
    """None for a job of an earlier version."""
    checkpoint: CheckpointView | None = None


class JobView(BaseModel):
    """A job as users read it."""

    id: str
    name: str
    status: Status
    stage: str | None
    progress: float
    stop_request: StopRequest | None
    """What its worker has been asked to do and has not done yet."""
    attempt: int
    """How many workers have taken it so far."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_finish_at: datetime | None
    """While it runs, and enough of it has run to tell."""
    dataset: str
    memory_limit_bytes: int
    supernet: str
    method: Method
    settings: JobSettings
    result: JobResult | None
    error: str | None

    @classmethod
    def of(cls, job: Job, checkpoint: CheckpointView | None = None) -> JobView:
        result = None
        if job.result is not None:
            result = JobResult.model_validate(job.result | {"checkpoint": checkpoint})
        return cls(
            id=job.id,
            name=job.name,
            status=job.status,
            stage=job.stage,
            progress=round(job.progress, 4),
            stop_request=job.stop_request,
            attempt=job.attempt,
            created_at=_time(job.created_at),
            started_at=_optional_time(job.started_at),
            finished_at=_optional_time(job.finished_at),
            estimated_finish_at=_optional_time(job.estimated_finish_at),
            dataset=job.dataset_id,
            memory_limit_bytes=job.memory_limit_bytes,
            supernet=job.supernet,
            method=Method(job.method),
            settings=JobSettings.model_validate(job.settings),
            result=result,
            error=job.error,
        )


def checkpoint_view(bundle: Artifact, url: str) -> CheckpointView:
    return CheckpointView(url=url, bytes=bundle.num_bytes, sha256=bundle.sha256 or "")


class TrialView(BaseModel):
    """One scored candidate of a job's search."""

    number: int
    subnet: JsonObject
    resolution: int
    plan: JsonObject
    predicted_peak_bytes: int
    validation_accuracy: float
    seconds: float
    finished_at: datetime

    @classmethod
    def of(cls, trial: Trial) -> TrialView:
        return cls(
            number=trial.number,
            subnet=trial.candidate["subnet"],
            resolution=trial.candidate["resolution"],
            plan=trial.candidate["plan"],
            predicted_peak_bytes=trial.predicted_peak_bytes,
            validation_accuracy=trial.accuracy,
            seconds=round(trial.seconds, 3),
            finished_at=_time(trial.finished_at),
        )


class AttemptView(BaseModel):
    """A worker's turn at a job."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptView:
        return cls(
            number=attempt.number,
            worker=attempt.worker,
            started_at=_time(attempt.started_at),
            ended_at=_optional_time(attempt.ended_at),
            outcome=attempt.outcome,
        )


class EventView(BaseModel):
    """Something that happened to a job; `detail` depends on `kind`."""

    number: int
    """From 1 on, without a gap; the id of a server-sent event."""
    kind: EventKind
    detail: JsonObject
    attempt: int
    created_at: datetime

    @classmethod
    def of(cls, event: Event) -> EventView:
        return cls(
            number=event.number,
            kind=event.kind,
            detail=event.detail,
            attempt=event.attempt,
            created_at=_time(event.created_at),
        )


class SupernetView(BaseModel):
    """What a job can start from."""

    id: str
    source: Source
    bytes: int | None
    """None for an official one that has not been fetched yet."""
    cached: bool

    @classmethod
    def of(cls, info: SupernetInfo) -> SupernetView:
        return cls(id=info.id, source=info.source, bytes=info.bytes, cached=info.cached)


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that the service needs."""

    name: str
    ok: bool
    detail: str


class Readiness(BaseModel):
    """Whether requests are worth sending here, and if not, why."""

    status: Literal["ready", "not ready"]
    checks: list[Check]


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[dict[str, Any]] | None = None


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _optional_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
