"""Routes of datasets."""

from __future__ import annotations

import uuid
from functools import partial
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.deps import DatabaseDep, DatasetDep, SettingsDep
from service.api.uploads import FORM_SCHEMA, receive_file
from service.datasets import import_dataset, list_datasets
from service.schemas import DatasetView

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses={HTTPStatus.OK: {"model": DatasetView, "description": "Known already"}},
    openapi_extra=FORM_SCHEMA,
)
async def upload_dataset(
    request: Request, response: Response, settings: SettingsDep, database: DatabaseDep
) -> DatasetView:
    """Upload a zip of class folders, as the form field `file`; optionally a `name`.

    The same images give the same dataset again (200 instead of 201).
    """
    settings.incoming_dir.mkdir(parents=True, exist_ok=True)
    incoming = settings.incoming_dir / f"{uuid.uuid4().hex}.zip"
    try:
        name = await receive_file(request, incoming, max_bytes=settings.max_upload_bytes)
        store = partial(import_dataset, incoming, settings=settings, database=database, name=name)
        dataset, is_new = await run_in_threadpool(store)
    finally:
        incoming.unlink(missing_ok=True)
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return DatasetView.of(dataset)


@router.get("")
def get_datasets(database: DatabaseDep) -> list[DatasetView]:
    """All datasets, newest first."""
    return [DatasetView.of(dataset) for dataset in list_datasets(database)]


@router.get("/{dataset_id}")
def get_dataset(dataset: DatasetDep) -> DatasetView:
    """One dataset."""
    return DatasetView.of(dataset)
