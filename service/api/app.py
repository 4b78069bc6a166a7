"""The application: routes, problem documents, the page at /. It never imports torch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI

from service.api.access import AccessMiddleware, Keys, Limits
from service.api.document import openapi
from service.api.http.conditional import HeadMiddleware
from service.api.http.problems import add_problem_handlers
from service.api.http.streams import Streams
from service.api.metrics import Metrics, MetricsMiddleware
from service.api.routes import (
    actions,
    datasets,
    devices,
    events,
    exports,
    jobs,
    predictions,
    system,
)
from service.dashboard.page import add_page
from service.datasets.store import remove_stale_uploads
from service.record.db.database import Database
from service.record.files.blobs import open_blobs
from service.settings import Settings


def create_app(settings: Settings, *, needs_key: bool = False) -> FastAPI:
    """The API on an up-to-date database. It needs API keys once there is one, or from the
    start."""
    database = Database(settings.resolved_database_url)
    streams = Streams(settings.max_event_streams)
    metrics = Metrics(database, streams)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        remove_stale_uploads(settings)
        yield
        streams.close()
        database.close()

    app = FastAPI(
        title="tinyfit",
        description="Fits a vision model to your images and to your device's training memory.",
        version=version("tinyfit"),
        lifespan=lifespan,
        generate_unique_id_function=openapi.operation_id,
        # FastAPI's own pages load their scripts from another host
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # a route of ours, so that it is conditional
    )
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    app.state.settings = settings
    app.state.database = database
    app.state.blobs = open_blobs(settings, database)
    app.state.streams = streams
    app.state.metrics = metrics
    add_problem_handlers(app)
    for routes in (datasets, jobs, exports, devices, predictions, actions, events, system):
        app.include_router(routes.router)
    add_page(app)
    # the last one added is the outermost
    keys = Keys(database, are_needed=needs_key)
    app.add_middleware(AccessMiddleware, keys=keys, limits=Limits(settings))
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(HeadMiddleware)
    return app
