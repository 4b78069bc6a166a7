"""The tables. Times are seconds since the epoch by the database's clock (`database.now`)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, Float, ForeignKey, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonObject = dict[str, Any]


class Status(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


def _values(statuses: type[Status]) -> list[str]:
    return [status.value for status in statuses]


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
        Status: Enum(Status, native_enum=False, length=16, values_callable=_values),
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
    created_at: Mapped[float]


class Job(Base):
    """One wish to fit a model to a dataset, and how far it has come."""

    __tablename__ = "jobs"
    __table_args__ = (Index(None, "status", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    memory_limit_bytes: Mapped[int] = mapped_column(BigInteger)
    supernet: Mapped[str] = mapped_column(String(500))
    method: Mapped[str] = mapped_column(String(32))
    settings: Mapped[JsonObject]

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
    """Attempts that ended without a word: their worker or process died."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)

    result: Mapped[JsonObject | None]
    error: Mapped[str | None] = mapped_column(Text)


class Trial(Base):
    """A scored candidate. These rows are the truth of a job's search."""

    __tablename__ = "trials"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    candidate: Mapped[JsonObject]
    predicted_peak_bytes: Mapped[int] = mapped_column(BigInteger)
    accuracy: Mapped[float]
    """On the validation split, 0 to 1."""
    seconds: Mapped[float]
    attempt: Mapped[int]
    finished_at: Mapped[float]


class Artifact(Base):
    """What a finished stage left behind: a file or folder of the attempt that made it."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(String(500))
    """Relative to the job's folder."""
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[JsonObject]
    attempt: Mapped[int]
    created_at: Mapped[float]
