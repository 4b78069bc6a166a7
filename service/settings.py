"""Settings of one installation, read from TINYFIT_* variables and passed in; no globals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.logs import LogFormat
from tinytl.units import parse_size

Bytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""A size: bytes, or text such as "64MB"."""


class Settings(BaseSettings):
    """What an installation may set. Unsafe values refuse to start."""

    model_config = SettingsConfigDict(env_prefix="TINYFIT_", frozen=True, extra="forbid")

    data_dir: Path = Path("data")
    """Datasets, artifacts and the embedded database."""
    database_url: str | None = None
    """SQLAlchemy URL; None is the SQLite file in data_dir."""
    supernet_cache_dir: Path = Path("~/.cache/tinyfit/supernets")
    """Where official supernets are kept once fetched."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    log_format: LogFormat = "text"

    max_requests_per_second: int = Field(default=500, ge=0)
    """By one API key, or where none is needed one address; 0 is no limit, here and below."""
    max_uploads_per_minute: int = Field(default=60, ge=0)
    max_jobs_per_minute: int = Field(default=600, ge=0)
    """Jobs made, not jobs done."""
    max_event_streams: int = Field(default=100, ge=1)
    """Clients that follow a job's events at the same time."""
    event_poll_seconds: float = Field(default=1.0, gt=0)
    """How often a stream of events looks for new ones."""
    min_free_bytes: Bytes = 500_000_000
    """With less free space in data_dir, /readyz says that the service is not ready."""

    max_upload_bytes: Bytes = 2_000_000_000
    max_dataset_bytes: Bytes = 8_000_000_000
    """All images of a dataset, unpacked."""
    max_image_bytes: Bytes = 100_000_000
    max_image_pixels: int = Field(default=120_000_000, gt=0)
    max_dataset_images: int = Field(default=200_000, gt=0)
    max_classes: int = Field(default=2_000, ge=2)
    max_compression_ratio: float = Field(default=200.0, gt=1)
    """Unpacked over packed size of an archive entry; images hardly compress."""
    min_images_per_class: int = Field(default=5, ge=3)
    """Training images that each class needs."""

    lease_seconds: float = Field(default=30.0, gt=0)
    """A job whose worker has not renewed its lease for so long goes to another worker."""
    poll_seconds: float = Field(default=0.5, gt=0)
    """How often a worker looks for work, and for a wish to cancel or pause."""
    stall_seconds: float = Field(default=600.0, gt=0)
    """A job's process that makes no progress for so long is killed, and the job tried again."""
    stop_grace_seconds: float = Field(default=20.0, ge=0)
    """What a worker that is told to end gives its job's process to stop, before it kills it."""
    max_lost_attempts: int = Field(default=3, ge=1)
    """A job that lost its worker more often than this fails."""
    job_niceness: int = Field(default=10, ge=0, le=19)
    """How far a job's process stands back behind others on the machine, as nice(1) counts."""
    database_patience_seconds: float = Field(default=60.0, ge=0)
    """How long a job's process waits for a database that does not answer."""

    @model_validator(mode="after")
    def _check_lease(self) -> Settings:
        if self.lease_seconds < 3 * self.poll_seconds:
            raise ValueError(
                f"lease_seconds must be at least three times poll_seconds, but got "
                f"{self.lease_seconds:g} and {self.poll_seconds:g}"
            )
        return self

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'tinyfit.db'}"

    @property
    def datasets_dir(self) -> Path:
        return self.data_dir / "datasets"

    @property
    def incoming_dir(self) -> Path:
        """Uploads under way; whatever lies here is not yet part of anything."""
        return self.data_dir / "incoming"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"
