"""What routes ask for: the settings, the database, ids, who asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from service.api.access import owner_of
from service.api.http.streams import Streams
from service.api.metrics import Metrics
from service.record.db.database import Database
from service.record.files.blobs import Blobs
from service.settings import Settings

MAX_NUMBER = 2**31 - 1
"""The largest number that a row can have."""


# async: none of these is worth a thread


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _blobs(request: Request) -> Blobs:
    blobs: Blobs = request.app.state.blobs
    return blobs


async def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


async def _owner(request: Request) -> str:
    return owner_of(request)


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
BlobsDep = Annotated[Blobs, Depends(_blobs)]
StreamsDep = Annotated[Streams, Depends(_streams)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
OwnerDep = Annotated[str, Depends(_owner)]

_VISIBLE = "^[!-~]+$"

JobId = Annotated[str, Path(max_length=64, pattern=_VISIBLE, description="A job's id.")]
DatasetId = Annotated[str, Path(max_length=64, pattern=_VISIBLE, description="A dataset's id.")]
