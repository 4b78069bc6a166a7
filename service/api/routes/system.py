"""Routes about the service itself: health, readiness, metrics, and what jobs can start from."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import text

from search.supernets.registry import list_supernets as list_known_supernets
from service.api.deps import BlobsDep, DatabaseDep, MetricsDep, SettingsDep
from service.api.document.examples import DEVICE, HEALTH, METRICS, READINESS, SUPERNET
from service.api.document.openapi import answers
from service.api.http.routes import Route
from service.api.readiness import check_readiness
from service.contract.devices import Device
from service.contract.devices import list_devices as list_known_devices
from service.views.schemas import Health, Readiness, SupernetView

router = APIRouter(tags=["system"], route_class=Route)


@router.get("/healthz", summary="Health", responses=answers(HEALTH))
def get_health(database: DatabaseDep) -> Health:
    """Answers while the process lives and its database does."""
    with database.reading() as session:
        session.execute(text("SELECT 1"))
    return Health()


@router.get(
    "/readyz",
    summary="Readiness",
    responses={
        **answers(READINESS),
        HTTPStatus.SERVICE_UNAVAILABLE: {
            "model": Readiness,
            "description": "Not ready; the checks say why",
        },
    },
)
def get_readiness(
    response: Response, settings: SettingsDep, database: DatabaseDep, blobs: BlobsDep
) -> Readiness:
    """Whether requests are worth sending here: the database, its schema, the storage, the
    artifact store, the workers. Without a worker it is ready all the same; jobs wait for one."""
    readiness = check_readiness(settings, database, blobs)
    if readiness.status != "ready":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return readiness


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=PlainTextResponse,
    responses={HTTPStatus.OK: {"content": {"text/plain": {"example": METRICS}}}},
)
def get_metrics(metrics: MetricsDep) -> Response:
    """In Prometheus' text format: jobs by status, the queue's age, workers, requests."""
    return Response(metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/supernets", summary="List supernets", responses=answers([SUPERNET]))
def list_supernets(settings: SettingsDep) -> list[SupernetView]:
    """What a job can start from: bundled ones, official ones, fetched on first use, and files
    that lie in the server's folder for them."""
    known = list_known_supernets(settings.supernet_cache_dir.expanduser())
    return [SupernetView.of(info) for info in known]


@router.get("/devices", summary="List devices", responses=answers([DEVICE]))
def list_devices(settings: SettingsDep) -> list[Device]:
    """What a job can be fitted to by name, with where the figures are from: presets, and those of
    this server's own file."""
    return list_known_devices(settings)


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> JSONResponse:
    document: dict[str, Any] = request.app.openapi()
    return JSONResponse(document)
