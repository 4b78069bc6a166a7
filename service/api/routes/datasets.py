"""Routes of datasets."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.deps import DatabaseDep, DatasetId, SettingsDep
from service.api.document.examples import DATASET
from service.api.document.openapi import answers, problems
from service.api.http.pages import Cursor, Limit, next_link, read_cursor
from service.api.http.routes import Route
from service.api.http.uploads import FORM_SCHEMA, receive_file
from service.datasets import store as store
from service.errors import InputError
from service.settings import Settings
from service.views.schemas import DatasetView
from tinytl.squares import Fit

_YES, _NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=Route)


@router.post(
    "",
    summary="Upload a dataset",
    status_code=HTTPStatus.CREATED,
    responses={
        **answers(DATASET, status=HTTPStatus.CREATED),
        HTTPStatus.OK: {
            "model": DatasetView,
            "description": "These images are known already",
            "content": {"application/json": {"example": DATASET}},
        },
        **problems(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.INSUFFICIENT_STORAGE,
        ),
    },
    openapi_extra=FORM_SCHEMA,
)
async def upload_dataset(
    request: Request, response: Response, settings: SettingsDep, database: DatabaseDep
) -> DatasetView:
    """Upload a zip or tar of labelled images, as the form field `file`; optionally a `name`.

    Images that can't be used are all named in the refusal's `errors`, unless `skip_broken` says
    to go on without them. The same images give the same dataset again (200 instead of 201).
    """
    settings.incoming_dir.mkdir(parents=True, exist_ok=True)
    incoming = settings.incoming_dir / f"{uuid.uuid4().hex}.upload"
    try:
        fields = await receive_file(request, incoming, max_bytes=settings.max_upload_bytes)
        add = partial(
            store.import_dataset,
            incoming,
            settings=_with_wishes(settings, fields),
            database=database,
            name=fields.get("name", "").strip() or None,
        )
        dataset, is_new = await run_in_threadpool(add)
    finally:
        incoming.unlink(missing_ok=True)
    response.status_code = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return DatasetView.of(dataset)


def _with_wishes(settings: Settings, fields: Mapping[str, str]) -> Settings:
    asked = fields.get("skip_broken", "").strip().lower()
    if not asked:
        return settings
    if asked not in _YES | _NO:
        raise InputError(f"skip_broken must be true or false but got {asked!r}")
    return settings.model_copy(update={"skip_broken": asked in _YES})


@router.get(
    "",
    summary="List datasets",
    responses=answers([DATASET], HTTPStatus.UNPROCESSABLE_ENTITY),
)
def list_datasets(
    response: Response, database: DatabaseDep, limit: Limit = 100, cursor: Cursor = None
) -> list[DatasetView]:
    """Newest first. Where there are more, the Link header leads to the next page."""
    after = read_cursor(cursor) if cursor is not None else None
    found = store.list_datasets(database, limit=limit + 1, after=after)
    page = found[:limit]
    if len(found) > limit:
        last = page[-1]
        link = next_link("/datasets", limit=limit, last=(last.created_at, last.id))
        response.headers.update(link)
    return [DatasetView.of(dataset) for dataset in page]


@router.delete(
    "/{dataset_id}",
    summary="Delete a dataset",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.CONFLICT),
)
def delete_dataset(dataset_id: DatasetId, settings: SettingsDep, database: DatabaseDep) -> None:
    """With its images. Jobs over it have to be deleted first."""
    store.delete_dataset(database, settings, dataset_id)


@router.get(
    "/{dataset_id}",
    summary="Look at a dataset",
    responses=answers(DATASET, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def get_dataset(dataset_id: DatasetId, database: DatabaseDep) -> DatasetView:
    """Its classes, its splits, and what was found in the upload."""
    return DatasetView.of(store.get_dataset(database, dataset_id))


@router.get(
    "/{dataset_id}/contact-sheet",
    summary="See a dataset's images as training does",
    response_class=Response,
    responses={
        HTTPStatus.OK: {"content": {"image/jpeg": {}}, "description": "A JPEG"},
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def get_contact_sheet(
    dataset_id: DatasetId,
    database: DatabaseDep,
    fit: Annotated[Fit | None, Query(description="The report's own, where none is named.")] = None,
) -> Response:
    """Some images of each class as squares. The report's `contact_sheet` names the classes."""
    jpeg = store.get_contact_sheet(database, dataset_id, fit)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})
