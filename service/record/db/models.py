"""The tables. Times are seconds since the epoch by the database's clock (`database.now`)."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Enum,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from search.statistics.binomial import standard_error
from service.contract.status import EventKind, JsonObject, Outcome, Priority, Status, StopRequest
from tinytl.description.method import PeakMeaning


def _stored(kind: type[StrEnum]) -> Enum:
    """As text: a new value needs no new database type."""
    return Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class _PriorityRank(TypeDecorator[Priority]):
    """As a number, the first to be taken 0: an index then reads as the queue goes."""

    impl = SmallInteger
    cache_ok = True

    def process_bind_param(self, value: Priority | None, dialect: Dialect) -> int | None:
        return None if value is None else list(Priority).index(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Priority | None:
        return None if value is None else list(Priority)[value]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        JsonObject: JSON,
        float: Float(53),
        Priority: _PriorityRank(),
        PeakMeaning: _stored(PeakMeaning),
        Status: _stored(Status),
        StopRequest: _stored(StopRequest),
        Outcome: _stored(Outcome),
        EventKind: _stored(EventKind),
    }


class Dataset(Base):
    """Images by split and class, stored under the hash of their content."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    classes: Mapped[list[str]] = mapped_column(JSON)
    counts: Mapped[JsonObject]
    """Images per split and class: {"train": {"cat": 120, ...}, ...}."""
    num_images: Mapped[int]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    report: Mapped[JsonObject | None]
    """What was found in the upload, as `DatasetReport` says; None before revision 0002."""
    blob_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    """Its images, as service/datasets/packed_images.py packs them; None before revision 0004,
    when they lay in a folder."""
    created_at: Mapped[float]


class ContactSheet(Base):
    """A picture of some of a dataset's images, as one fit shows them."""

    __tablename__ = "contact_sheets"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    fit: Mapped[str] = mapped_column(String(16), primary_key=True)
    jpeg: Mapped[bytes] = mapped_column(LargeBinary)


class Job(Base):
    """One wish to fit a model to a dataset, and how far it has come."""

    __tablename__ = "jobs"
    __table_args__ = (
        # Each list of jobs, filtered or not, reads one page along one of these.
        Index(None, "created_at", "id"),
        Index(None, "status", "created_at", "id"),
        Index(None, "dataset_id", "created_at", "id"),
        Index(None, "dataset_id", "status", "created_at", "id"),
        # The queue, and each owner's own.
        Index(None, "status", "priority", "created_at", "id"),
        Index(None, "status", "owner", "priority", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    memory_limit_bytes: Mapped[int] = mapped_column(BigInteger)
    supernet: Mapped[str] = mapped_column(String(500))
    """As asked for, "auto" where the data chooses."""
    chosen_supernet: Mapped[str | None] = mapped_column(String(500))
    """By the job's data, once its worker has looked; None where one is named."""
    supernet_probes: Mapped[list[JsonObject] | None] = mapped_column(JSON)
    """What was looked at for that: `supernet`, `resolution`, `accuracy`, `standard_error`."""
    method: Mapped[str] = mapped_column(String(32))
    peak_meaning: Mapped[PeakMeaning] = mapped_column(server_default=PeakMeaning.TORCH.value)
    """What its peaks are those of, and its limit binds; before revision 0010, torch's."""
    settings: Mapped[JsonObject]
    priority: Mapped[Priority] = mapped_column(default=Priority.NORMAL)
    owner: Mapped[str] = mapped_column(String(32), default="")
    """Id of the API key that made it; empty where none was needed."""

    status: Mapped[Status] = mapped_column(default=Status.QUEUED)
    stage: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    attempt: Mapped[int] = mapped_column(default=0)
    """Goes up with every claim; a worker's writes carry it, so that a late one changes nothing."""
    lease_expires_at: Mapped[float | None]
    lost_attempts: Mapped[int] = mapped_column(default=0)
    """Attempts whose worker or process died, since the job last got anything finished."""
    stop_request: Mapped[StopRequest | None]
    estimated_finish_at: Mapped[float | None]
    num_events: Mapped[int] = mapped_column(default=0)
    """The number of its latest event."""

    result: Mapped[JsonObject | None]
    error: Mapped[str | None] = mapped_column(Text)


class Attempt(Base):
    """A worker's turn at a job, from its claim to its end."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str] = mapped_column(String(200))
    """Host and process id."""
    started_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(index=True)
    outcome: Mapped[Outcome | None]
    """None while it runs."""


class StageTime(Base):
    """When an attempt worked on a stage of its job. One that went on in the midst of a stage,
    where another had stopped, has no row for that."""

    __tablename__ = "stage_times"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """Of the event that told of its begin."""
    attempt: Mapped[int]
    stage: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[float]
    ended_at: Mapped[float | None] = mapped_column(index=True)
    """None where it has not been finished."""


class Event(Base):
    """Something that happened to a job, numbered from 1 on without a gap."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[EventKind]
    detail: Mapped[JsonObject]
    attempt: Mapped[int]
    """0 before the first."""
    created_at: Mapped[float]


class Trial(Base):
    """A scored candidate. These rows are the truth of a job's search."""

    __tablename__ = "trials"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    candidate: Mapped[JsonObject]
    """With the fastest plan that fits, or, where an earlier job scored it, with its lean plan."""
    predicted_peak_bytes: Mapped[int] = mapped_column(BigInteger)
    lean_peak_bytes: Mapped[int] = mapped_column(BigInteger)
    """Predicted, with the plan that takes the least."""
    lean_plan: Mapped[JsonObject | None]
    """None before revision 0003, as macs, num_images and correct are; then it is taken to be the
    candidate's."""
    macs: Mapped[int | None] = mapped_column(BigInteger)
    """Multiply-accumulates of an image's forward pass."""
    accuracy: Mapped[float]
    """On the validation images looked at, 0 to 1."""
    loss: Mapped[float | None]
    """Cross-entropy on these, in nats; None before revision 0006, and where it is no number."""
    num_images: Mapped[int | None]
    """Validation images looked at."""
    correct: Mapped[bytes | None] = mapped_column(deferred=True)
    """Which of them were right, in bits, in the order of looking (`numpy.packbits`)."""
    is_complete: Mapped[bool] = mapped_column(default=True)
    """Whether all were looked at; else it was given up as hopeless."""
    reused: Mapped[bool] = mapped_column(default=False)
    """Whether an earlier job scored it."""
    seconds: Mapped[float]
    """That the score took, with its share of the proposing."""
    attempt: Mapped[int]
    finished_at: Mapped[float] = mapped_column(index=True)

    @property
    def standard_error(self) -> float | None:
        """Of the accuracy; None where num_images is."""
        return None if self.num_images is None else standard_error(self.accuracy, self.num_images)


class Blob(Base):
    """Content in the artifact store, by its hash; service/record/files/blobs.py says how it
    lives."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(100), unique=True)
    """The object's name in the store; no other blob ever has it, before or after."""
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    is_stored: Mapped[bool]
    """Whether the object is there; else it is being written, or its writer died."""
    touched_at: Mapped[float]
    """When it was last kept, be it by a row that refers to it or by one that is about to."""
    created_at: Mapped[float]


class Installation(Base):
    """The one row of what an installation knows of itself."""

    __tablename__ = "installation"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """1: there is no second row."""
    id: Mapped[str] = mapped_column(String(32))
    """Also in its artifact store, so that no other one takes that for its own."""
    collected_at: Mapped[float | None]
    """When a worker last began to collect garbage."""


class Artifact(Base):
    """A file that a stage of a job has left. The files of a folder have kinds `folder/file`."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(500))
    """Its name in an attempt's folder; where there is no blob, relative to the job's folder."""
    blob_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"), index=True)
    """None before revision 0004, when files lay in jobs' folders."""
    key: Mapped[str | None] = mapped_column(String(64), index=True)
    """The same of two artifacts that can stand for each other, whatever job made them."""
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[JsonObject]
    attempt: Mapped[int]
    created_at: Mapped[float]


class Webhook(Base):
    """Whom a job's end is told to; service/record/webhooks.py says when."""

    __tablename__ = "webhooks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    due_at: Mapped[float] = mapped_column(index=True)
    """Of the next try, once the job has ended."""
    num_attempts: Mapped[int] = mapped_column(default=0)
    """Tries since it was last told, or given up."""
    told_events: Mapped[int] = mapped_column(default=0)
    """The number of the job's latest event then: one that is retried ends again."""
    delivered_at: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)
    """Why the last try failed; None where it did not."""


class IdempotencyKey(Base):
    """A request to make a job that was answered already; the same one again makes no second."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Id of the API key that sent it; empty where none is needed."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[float] = mapped_column(index=True)


class ApiKey(Base):
    """A key that lets its bearer use the API. The key itself is not stored."""

    __tablename__ = "api_keys"
    __table_args__ = (
        Index(
            "uq_api_keys_active_name",
            "name",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    max_running: Mapped[int | None]
    """Most of its jobs that run at the same time; None is no limit."""
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]


class WorkerPresence(Base):
    """A worker process that is up, as far as it has been heard of."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    """Host and process id, as in `Attempt.worker`."""
    started_at: Mapped[float]
    seen_at: Mapped[float]
