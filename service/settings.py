"""Settings of one installation, read from TINYFIT_* variables and passed in; no globals."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.logs import LogFormat
from service.signing import key_of
from tinytl.units import parse_size

Bytes = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""A size: bytes, or text such as "64MB"."""


def check_ray_address(address: str) -> str:
    """Without importing Ray. A Ray Client, as of ray://, can't do all that is needed."""
    if address != "auto" and not re.fullmatch(r"[A-Za-z0-9._-]+:\d{1,5}", address):
        raise ValueError(f"ray_address must be auto or HOST:PORT but got {address!r}")
    if find_spec("ray") is None:
        raise ValueError(
            f"ray_address is {address!r}, but Ray is not installed: pip install 'tinyfit[ray]'"
        )
    return address


def check_gpus_per_task(share: float) -> float:
    """Ray counts GPUs by ten thousandths."""
    if share > 1:
        raise ValueError(
            f"ray_gpus_per_task must be at most 1, as a task uses one GPU, but got {share:g}"
        )
    if share != 0 and not share >= 1e-4:
        raise ValueError(f"ray_gpus_per_task must be 0, or from 0.0001 to 1, but got {share:g}")
    return share


def _check_secret(secret: SecretStr) -> SecretStr:
    try:
        key_of(secret.get_secret_value())
    except ValueError as error:
        raise ValueError(f"webhook_secret is not one to sign with: {error}") from error
    return secret


AUTO_SUPERNET = "auto"
"""In place of a supernet's name: the data chooses, among those that fit the limits."""


class Settings(BaseSettings):
    """What an installation may set. Unsafe values refuse to start."""

    model_config = SettingsConfigDict(env_prefix="TINYFIT_", frozen=True, extra="forbid")

    data_dir: Path = Path("data")
    """Uploads and attempts under way, and, where nothing else is said, database and artifacts."""
    database_url: str | None = None
    """SQLAlchemy URL; None is the SQLite file in data_dir."""
    artifact_url: str | None = None
    """Where what jobs leave and datasets are stored: a folder, or a URL of an object store that
    fsspec knows, such as s3://bucket/prefix. None is the folder `artifacts` in data_dir."""
    supernet_cache_dir: Path = Path("~/.cache/tinyfit/supernets")
    """Where official supernets are kept once fetched."""
    supernet: str = AUTO_SUPERNET
    """What jobs start from that ask for "auto": an id, a path, or "auto", as the data chooses."""

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
    max_image_pixels: int = Field(default=120_000_000, gt=0, le=178_956_970)
    """Of larger images Pillow itself opens none."""
    max_dataset_images: int = Field(default=200_000, gt=0)
    max_classes: int = Field(default=2_000, ge=2)
    max_compression_ratio: float = Field(default=200.0, gt=1)
    """Unpacked over packed size of an archive entry; images hardly compress."""
    min_images_per_class: int = Field(default=5, ge=3)
    """Training images that each class needs."""
    skip_broken: bool = False
    """Whether uploads that don't say go on without images that can't be used."""

    artifact_grace_seconds: float = Field(default=24 * 3600.0, ge=0)
    """What nothing refers to stays in the artifact store for so long after its last use."""
    artifact_patience_seconds: float = Field(default=300.0, ge=0)
    """How long a job's process waits for an artifact store that does not answer."""
    retention_days: float | None = Field(default=None, gt=0)
    """Jobs that ended longer ago are deleted, with all that they left; None keeps them."""

    devices: Path | None = None
    """A JSON file of devices of one's own."""
    webhook_secret: Annotated[SecretStr, AfterValidator(_check_secret)] | None = None
    """Signs webhooks: "whsec_" and base64, or any text; None sends none."""
    webhook_allow_private: bool = False
    """Whether webhooks may go to this machine and its network."""

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

    pool_processes: int = Field(default=1, ge=1)
    """How many processes a job scores and trains in; 1 is its own."""
    ray_address: Annotated[str, AfterValidator(check_ray_address)] | None = None
    """The Ray cluster on which jobs score and train, HOST:PORT or auto; None is this machine."""
    ray_patience_seconds: float = Field(default=60.0, gt=0)
    """How long the Ray cluster may not answer before a job goes back into the queue."""
    ray_gpus_per_task: Annotated[float, AfterValidator(check_gpus_per_task)] = 0.0
    """How much of a GPU the Ray cluster gives a task; 0 is none, and tasks run on processors."""

    @model_validator(mode="after")
    def _check_pool(self) -> Settings:
        if self.ray_address is not None and self.pool_processes > 1:
            raise ValueError(
                f"pool_processes is for this machine: it must be 1 where ray_address is "
                f"{self.ray_address!r}, but got {self.pool_processes}"
            )
        return self

    @model_validator(mode="after")
    def _check_gpus(self) -> Settings:
        if self.ray_gpus_per_task > 0 and self.ray_address is None:
            raise ValueError(
                f"ray_gpus_per_task is for tasks on a Ray cluster: it must be 0 without a "
                f"ray_address, but got {self.ray_gpus_per_task:g}"
            )
        return self

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
    def resolved_artifact_url(self) -> str:
        return self.artifact_url or str(self.data_dir.resolve() / "artifacts")

    @property
    def datasets_dir(self) -> Path:
        """Datasets of versions before there was an artifact store."""
        return self.data_dir / "datasets"

    @property
    def incoming_dir(self) -> Path:
        """Uploads under way; whatever lies here is not yet part of anything."""
        return self.data_dir / "incoming"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"
