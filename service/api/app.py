"""The application: routes, problem documents, the page at /. It never imports torch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from sqlalchemy import text

import service.dashboard
from service.api import datasets, jobs
from service.api.deps import DatabaseDep
from service.api.problems import RESPONSES, add_problem_handlers
from service.database import Database
from service.datasets import remove_stale_uploads
from service.schemas import Health
from service.settings import Settings

_PAGE = Path(service.dashboard.__file__).with_name("index.html")


def create_app(settings: Settings) -> FastAPI:
    """The API on an up-to-date database."""
    database = Database(settings.resolved_database_url)
    page = _PAGE.read_text(encoding="utf-8")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        remove_stale_uploads(settings)
        yield
        database.close()

    app = FastAPI(
        title="tinyfit",
        description="Fits a vision model to your images and to your device's training memory.",
        version="0.1.0",
        lifespan=lifespan,
        responses=RESPONSES,
        # FastAPI's own pages load their scripts from another host
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.database = database
    add_problem_handlers(app)
    app.include_router(datasets.router)
    app.include_router(jobs.router)

    @app.get("/healthz", tags=["system"])
    def get_health(database: DatabaseDep) -> Health:
        """Answers while the process lives and its database does."""
        with database.reading() as session:
            session.execute(text("SELECT 1"))
        return Health()

    @app.get("/", include_in_schema=False)
    def get_page() -> HTMLResponse:
        return HTMLResponse(page)

    return app
