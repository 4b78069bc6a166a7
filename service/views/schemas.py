"""What users get, over HTTP and from the command line alike: rows as they read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict

from search.errors import SearchError
from search.space.lite_residual_sizes import method_of
from search.supernets.registry import Source, SupernetInfo, parse_supernet
from service.contract.described import Described
from service.contract.requests import JobSettings, MethodChoice
from service.contract.status import EventKind, JsonObject, Outcome, Priority, Status, StopRequest
from service.record.db.models import Artifact, Attempt, Dataset, Event, Job, Trial, Webhook
from service.settings import AUTO_SUPERNET
from service.views.results import CheckpointView, JobResult
from tinytl.description.method import Method, PeakMeaning
from tinytl.squares import Fit


class ContactSheet(Described):
    """How the picture at /datasets/{id}/contact-sheet is to be read: a class a row."""

    classes: dict[str, int]
    """The classes that are shown, in order, and how many images of each."""
    tile: int
    """Side of an image, in pixels."""
    columns: int
    """Images that a row has room for."""


class DatasetReport(Described):
    """What was found in an upload."""

    formats: dict[str, int]
    """Images per file format: {"JPEG": 120, ...}."""
    smallest_image: tuple[int, int]
    """Width and height of the image with the fewest pixels."""
    largest_image: tuple[int, int]
    ignored_files: int
    """What systems and services leave beside photos, and files that are no images; left out."""
    notes: list[str]
    """Sentences on what to know or to mend, such as missing splits and small classes."""
    fit: Fit | None = None
    """How a picture becomes a square where a job asks for "auto"; null for a dataset that was
    reported before there was a choice, whose pictures are cropped."""
    crop_loss: float | None = None
    """Share of the pictures' area that cropping would leave out, on average."""
    contact_sheet: ContactSheet | None = None


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


class SupernetProbe(Described):
    """How well a supernet tells the data's classes apart after a short training: a linear probe of
    the features of the largest subnet within the limits at a resolution, each image told by all
    others."""

    supernet: str
    resolution: int
    epochs: int = 0
    """Of that training; 0 where an earlier version looked at features as they come."""
    accuracy: float
    standard_error: float


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
    """As asked for; "auto" where the data chooses."""
    chosen_supernet: str | None
    """The one that is searched; null as long as the data has not chosen."""
    supernet_probes: list[SupernetProbe] | None
    """What was looked at for that choice; null where a supernet is named."""
    stage_depths: list[int] | None = None
    """Of the supernet: blocks of each of its stages, the last single block apart, as subnets list
    kernel sizes and expand ratios; null where its file is not at hand."""
    method: MethodChoice
    """As asked for; `result` has that of the chosen candidate."""
    peak_meaning: PeakMeaning
    """What peaks of its candidates are those of, and the limit binds: `process`, the device
    trainer's whole process, or `torch`, what torch's allocator hands out. The latter for methods
    that the device trainer refuses, and for jobs of an earlier version."""
    priority: Priority
    settings: JobSettings
    result: JobResult | None
    error: str | None

    @classmethod
    def of(cls, job: Job, checkpoint: CheckpointView | None = None) -> JobView:
        result = None
        if job.result is not None:
            asked = {"method": MethodChoice(job.method).method}  # an earlier version's was named
            result = JobResult.model_validate(asked | job.result | {"checkpoint": checkpoint})
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
            chosen_supernet=job.chosen_supernet or _named(job.supernet),
            supernet_probes=None
            if job.supernet_probes is None
            else [SupernetProbe.model_validate(found) for found in job.supernet_probes],
            stage_depths=_stage_depths(job.chosen_supernet or job.supernet),
            method=MethodChoice(job.method),
            peak_meaning=job.peak_meaning,
            priority=job.priority,
            settings=JobSettings.recorded(job.settings),
            result=result,
            error=job.error,
        )


def _named(supernet: str) -> str | None:
    return None if supernet == AUTO_SUPERNET else supernet


def checkpoint_view(bundle: Artifact, url: str) -> CheckpointView:
    return CheckpointView(url=url, bytes=bundle.num_bytes, sha256=bundle.sha256 or "")


class TrialView(Described):
    """One scored candidate of a job's search."""

    number: int
    subnet: JsonObject
    resolution: int
    method: Method
    """What it would be trained with."""
    lite_residual: JsonObject | None
    """Size of the lite residual modules; null where the method has none."""
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
    where each has a head of its own (then it is the one of least memory), and for a job of an
    earlier version."""
    num_images: int | None
    """Validation images looked at; null for a job of an earlier version."""
    is_complete: bool
    """Whether those were all; else it was given up as hopeless."""
    reused: bool
    """Whether an earlier job scored it."""
    seconds: float
    finished_at: datetime

    @classmethod
    def of(cls, trial: Trial, choice: MethodChoice) -> TrialView:
        """choice: that of the trial's job."""
        lite_residual = trial.candidate["lite_residual"]
        method = method_of(choice.method, lite_residual)
        return cls(
            number=trial.number,
            subnet=trial.candidate["subnet"],
            resolution=trial.candidate["resolution"],
            method=method,
            lite_residual=lite_residual if method.uses_lite_residual else None,
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


class WebhookView(Described):
    """Whom a job's end is told to, and whether it has been."""

    url: str
    delivered_at: datetime | None
    """When it was last taken."""
    num_attempts: int
    """Tries that failed since; it is tried again for nine hours or so, and then given up."""
    error: str | None
    """Why the last try failed; null where it did not."""

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookView:
        return cls(
            url=webhook.url,
            delivered_at=_optional_time(webhook.delivered_at),
            num_attempts=webhook.num_attempts,
            error=webhook.error,
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


def _stage_depths(supernet: str) -> list[int] | None:
    try:
        spec = parse_supernet(supernet)
    except SearchError:
        return None
    return [stage.depths[-1] for stage in spec.stages]


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
