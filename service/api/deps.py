"""What routes ask for: the settings, the database, and looked-up rows. A 404 is written once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.database import Database
from service.datasets import get_dataset
from service.jobs import get_job
from service.models import Dataset, Job
from service.settings import Settings


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]


def _dataset(dataset_id: str, database: DatabaseDep) -> Dataset:
    return get_dataset(database, dataset_id)


def _job(job_id: str, database: DatabaseDep) -> Job:
    return get_job(database, job_id)


DatasetDep = Annotated[Dataset, Depends(_dataset)]
JobDep = Annotated[Job, Depends(_job)]
