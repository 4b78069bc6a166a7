"""Routes of what a finished job's network becomes elsewhere: as ONNX, and class by class."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from service.api.deps import BlobsDep, DatabaseDep, JobId, SettingsDep
from service.api.document.examples import EVALUATION as EVALUATION_EXAMPLE
from service.api.document.openapi import answers, problems
from service.api.http.routes import ShortBodyRoute
from service.api.routes.checkpoint import Content, find_content, send_bundle
from service.contract.status import Status
from service.errors import NotFoundError, UnavailableError
from service.record import jobs as record
from service.record.db.database import Database
from service.record.db.models import Artifact, Job
from service.record.files.artifacts import EVALUATION, ONNX
from service.record.files.blobs import Blobs
from service.settings import Settings
from service.views.evaluation import EvaluationView

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ShortBodyRoute)

_NOT_FOUND = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_EXPORT_SECONDS = 120
_CHUNK_BYTES = 1 << 20
_ZIP = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
_room = CapacityLimiter(2)
"""For processes at a time: each takes more memory than the web process itself."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An export's size and SHA-256."""

    num_bytes: int
    sha256: str


def finished(database: Database, job_id: str) -> tuple[Job, Artifact]:
    """A job that has succeeded, and its bundle. Raises NotFoundError."""
    job, bundle = record.find_job(database, job_id)
    if bundle is None or job.status is not Status.SUCCEEDED:
        raise NotFoundError(
            f"job {job.id!r} is {job.status.value} and has no model; wait until it has succeeded"
        )
    return job, bundle


def as_file(content: Content, num_bytes: int, path: Path) -> Path:
    """Content as a file; copied to path where it lies in a store elsewhere."""
    if isinstance(content, Path):
        return content
    with path.open("wb") as file:
        for chunk in content(0, num_bytes):
            file.write(chunk)
    return path


async def find_export(
    job: Job,
    bundle: Artifact,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    folder: Path,
) -> tuple[Content, Made]:
    """The job's export as a zip; of a job of an earlier version it is made, in folder."""
    there = await run_in_threadpool(record.get_artifact, database, job.id, ONNX)
    if there is not None:
        content = await run_in_threadpool(find_content, there, settings, blobs)
        return content, Made(num_bytes=there.num_bytes, sha256=there.sha256 or "")
    return await to_thread.run_sync(_make, bundle, settings, blobs, folder, limiter=_room)


def _make(
    bundle: Artifact, settings: Settings, blobs: Blobs, folder: Path
) -> tuple[Content, Made]:
    """In a process of its own, whose memory goes with it."""
    content = find_content(bundle, settings, blobs)
    source = as_file(content, bundle.num_bytes, folder / "model.tinyfit.zip")
    target = folder / "onnx.zip"
    command = [sys.executable, "-m", "tinytl.onnx_export", str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_EXPORT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"the export was not done within {_EXPORT_SECONDS} s; try again later",
            retry_after_seconds=_EXPORT_SECONDS,
        ) from error
    if done.returncode != 0:
        raise NotFoundError(
            f"the checkpoint of job {bundle.job_id!r} can't be exported: {done.stderr.strip()}"
        )
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return target, Made(num_bytes=target.stat().st_size, sha256=digest.hexdigest())


@router.get(
    "/{job_id}/export/onnx",
    summary="Download a finished job's network as ONNX",
    response_class=FileResponse,
    responses={
        HTTPStatus.OK: {"content": _ZIP},
        HTTPStatus.PARTIAL_CONTENT: {
            "description": "The part that Range asks for",
            "content": _ZIP,
        },
        **problems(*_NOT_FOUND, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    },
)
async def get_onnx(
    request: Request,
    job_id: JobId,
    settings: SettingsDep,
    database: DatabaseDep,
    blobs: BlobsDep,
) -> Response:
    """A zip of `model.onnx`, `model.int8.onnx`, `model.json` and `predict.py`, which needs
    onnxruntime, NumPy and Pillow alone. Its entity tag is its SHA-256."""
    job, bundle = await run_in_threadpool(finished, database, job_id)
    folder = tempfile.TemporaryDirectory(prefix="tinyfit-onnx-")
    try:
        content, made = await find_export(
            job, bundle, settings, database, blobs, Path(folder.name)
        )
        response = send_bundle(
            request,
            content,
            num_bytes=made.num_bytes,
            sha256=made.sha256,
            filename=f"tinyfit-{job.id[:8]}-onnx.zip",
        )
    except BaseException:
        folder.cleanup()
        raise
    response.background = BackgroundTask(folder.cleanup)
    return response


@router.get(
    "/{job_id}/evaluation",
    summary="Look at a finished job's network class by class",
    response_model=EvaluationView,
    responses=answers(EVALUATION_EXAMPLE, *_NOT_FOUND),
)
def get_evaluation(
    job_id: JobId, settings: SettingsDep, database: DatabaseDep, blobs: BlobsDep
) -> Response:
    """Recall, precision and confusion on the test images, with the surest mistakes."""
    job, _ = finished(database, job_id)
    there = record.get_artifact(database, job.id, EVALUATION)
    if there is None:
        raise NotFoundError(
            f"job {job.id!r} is of an earlier version and has no evaluation; run it again"
        )
    content = find_content(there, settings, blobs)
    if isinstance(content, Path):
        return Response(content.read_bytes(), media_type="application/json")
    return Response(b"".join(content(0, there.num_bytes)), media_type="application/json")
