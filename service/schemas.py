"""What users send and get, over HTTP and from the command line alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from search.registry import Source, SupernetInfo
from service.amounts import Count, Duration, Size
from service.described import Described
from service.record.models import (
    Artifact,
    Attempt,
    Dataset,
    Event,
    EventKind,
    Job,
    JsonObject,
    Outcome,
    Priority,
    Status,
    StopRequest,
    Trial,
)
from service.results import CheckpointView, JobResult
from service.settings import AUTO_SUPERNET
from tinytl.trainable import Method

DEFAULT_TRIALS = 48
MOST_TRIALS = 10_000


def _check_line(given: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in given):
        raise ValueError("expected one line of text, without control characters")
    return given


SamplerName = Literal["predictor", "tpe", "nsga2", "gp", "random"]
"""Those of search.optuna_trials, which the web process does not import."""

Line = Annotated[str, AfterValidator(_check_line)]
"""Text that every database can hold and every log can show."""


class JobSettings(Described):
    """How a job is carried out. The same settings on the same data give the same result, as long
    as nothing of earlier jobs is used again and no time is limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=DEFAULT_TRIALS, ge=1, le=MOST_TRIALS)
    """Candidates that the search scores, at most; with a time limit and no number, 10000."""
    sampler: SamplerName = "predictor"
    """Who proposes candidates: a predictor of accuracy that knows the memory of each, or one of
    Optuna's samplers."""
    time_limit_seconds: Duration | None = None
    """Of the search: once it is over, no more candidates are proposed."""
    mac_limit: Count | None = None
    """Most multiply-accumulates of an image's forward pass; null is no limit."""
    patience: int = Field(default=64, ge=1, le=MOST_TRIALS)
    """The search ends when so many candidates in a row were no better, for their memory, than
    those before."""
    race: bool = True
    """Whether a candidate is given up as soon as one of no more memory is better beyond doubt."""
    reuse: bool = True
    """Whether what an earlier job has adapted to the same data in the same way is used again,
    with its scores, which the search then begins with."""
    epochs: int = Field(default=10, ge=1, le=1_000)
    """Of the final training, on the device's terms."""
    adapt_steps: int = Field(default=400, ge=1, le=1_000_000)
    """Of the supernet's adaptation to the dataset, before the search."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of all that is drawn at random."""
    batch_size: int = Field(default=8, ge=1, le=1_024)
    """Images between two updates in the final training; a plan may look at fewer at once."""
    resolutions: tuple[int, ...] = Field(default=(48, 64, 80, 96), min_length=1, max_length=32)
    """Image sides that may be chosen, in pixels, rising."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Null: the method's own."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of each label that is spread over all classes."""
    horizontal_flip: bool = True
    """Whether a mirrored image shows the same class; false for text and digits. Training then
    mirrors images at random, and scoring judges each together with its mirror image."""
    min_crop_scale: float = Field(default=0.5, gt=0, le=1)
    """Smallest part of an image's area that a random training crop shows."""

    @model_validator(mode="before")
    @classmethod
    def _fill_trials(cls, given: Any) -> Any:
        is_timed = isinstance(given, Mapping) and given.get("time_limit_seconds") is not None
        return {"trials": MOST_TRIALS, **given} if is_timed else given


class JobRequest(Described):
    """The body of POST /jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Line = Field(max_length=100)
    """Id of an uploaded dataset."""
    memory_limit: Size
    """What training on the device may take at its worst moment, everything counted."""
    name: Line = Field(default="", max_length=200)
    """Empty: one of its own, after its id."""
    method: Method = Method.LITE_RESIDUAL_BIAS
    """What is trained; the classifier always is."""
    supernet: Line = Field(default=AUTO_SUPERNET, min_length=1, max_length=500)
    """"auto" is the widest bundled one of which every candidate is within the limits."""
    priority: Priority = Priority.NORMAL
    """Which queued jobs are taken first; one that runs is not interrupted."""
    settings: JobSettings = JobSettings()


class JobChange(Described):
    """The body of PATCH /jobs/{id}."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority


class DatasetReport(Described):
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


class DatasetView(Described):
    id: str
    name: str
    classes: list[str]
    counts: dict[str, dict[str, int]]
    num_images: int
    bytes: int
    report: DatasetReport | None
    """Null for a dataset of an earlier version."""
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


class JobView(Described):
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
    priority: Priority
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
            priority=job.priority,
            settings=JobSettings.model_validate(job.settings),
            result=result,
            error=job.error,
        )


def checkpoint_view(bundle: Artifact, url: str) -> CheckpointView:
    return CheckpointView(url=url, bytes=bundle.num_bytes, sha256=bundle.sha256 or "")


class TrialView(Described):
    """One scored candidate of a job's search."""

    number: int
    subnet: JsonObject
    resolution: int
    lite_residual: JsonObject
    """Size of the lite residual modules, which are there where the method has them."""
    plan: JsonObject
    """The fastest that fits the limit or, where an earlier job scored it, its lean plan."""
    predicted_peak_bytes: int
    """With that plan."""
    lean_plan: JsonObject
    """The one that takes the least memory."""
    lean_peak_bytes: int
    macs: int | None
    """Multiply-accumulates of an image's forward pass; null for a job of an earlier version."""
    validation_accuracy: float
    """With the weights that all candidates share; each image is judged together with its mirror
    image where horizontal_flip is set."""
    standard_error: float | None
    """Of that accuracy; null for a job of an earlier version."""
    validation_loss: float | None
    """Cross-entropy, in nats: of equally accurate candidates that of the lowest is chosen; null
    for a job of an earlier version."""
    num_images: int | None
    """Validation images looked at; null for a job of an earlier version."""
    is_complete: bool
    """Whether those were all; else it was given up as hopeless."""
    reused: bool
    """Whether an earlier job scored it."""
    seconds: float
    finished_at: datetime

    @classmethod
    def of(cls, trial: Trial) -> TrialView:
        return cls(
            number=trial.number,
            subnet=trial.candidate["subnet"],
            resolution=trial.candidate["resolution"],
            lite_residual=trial.candidate["lite_residual"],
            plan=trial.candidate["plan"],
            predicted_peak_bytes=trial.predicted_peak_bytes,
            lean_plan=trial.lean_plan or trial.candidate["plan"],
            lean_peak_bytes=trial.lean_peak_bytes,
            macs=trial.macs,
            validation_accuracy=trial.accuracy,
            standard_error=trial.standard_error,
            validation_loss=trial.loss,
            num_images=trial.num_images,
            is_complete=trial.is_complete,
            reused=trial.reused,
            seconds=round(trial.seconds, 3),
            finished_at=_time(trial.finished_at),
        )


class AttemptView(Described):
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


class EventView(Described):
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


class SupernetView(Described):
    """What a job can start from."""

    id: str
    source: Source
    bytes: int | None
    """Null for an official one that has not been fetched yet."""
    cached: bool

    @classmethod
    def of(cls, info: SupernetInfo) -> SupernetView:
        return cls(id=info.id, source=info.source, bytes=info.bytes, cached=info.cached)


class Health(Described):
    status: Literal["ok"] = "ok"


class Check(Described):
    """One thing that the service needs."""

    name: str
    ok: bool
    detail: str


class Readiness(Described):
    """Whether requests are worth sending here, and if not, why."""

    status: Literal["ready", "not ready"]
    checks: list[Check]


class Problem(Described):
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
