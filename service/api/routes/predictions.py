"""Trying a finished job's network on an image. It runs in a process of its own: what an image's
decoder and onnxruntime take is gone with it, and the web process imports neither torch nor it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from http import HTTPStatus
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from service.api.deps import BlobsDep, DatabaseDep, JobId, SettingsDep
from service.api.document.examples import PREDICTION
from service.api.document.openapi import answers
from service.api.http.routes import Route
from service.api.http.uploads import FORM_SCHEMA, receive_file
from service.api.routes.exports import as_file, find_export, finished
from service.datasets.images import check_image
from service.errors import InputError, NotFoundError, UnavailableError
from service.settings import Settings
from service.views.evaluation import ClassProbability, PredictionView
from tinytl.onnx_export.files import MODEL_FILES

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=Route)

_MAX_IMAGE_BYTES = 50_000_000
_SECONDS = 60
_room = CapacityLimiter(2)
"""For processes at a time."""


@router.post(
    "/{job_id}/predict",
    summary="Classify an image with a finished job's network",
    responses=answers(
        PREDICTION,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
    openapi_extra=FORM_SCHEMA,
)
async def predict(
    request: Request,
    job_id: JobId,
    settings: SettingsDep,
    database: DatabaseDep,
    blobs: BlobsDep,
) -> PredictionView:
    """The image is the form field `file`. It is not kept."""
    job, bundle = await run_in_threadpool(finished, database, job_id)
    with tempfile.TemporaryDirectory(prefix="tinyfit-try-") as name:
        folder = Path(name)
        image = folder / "image"
        fields = await receive_file(request, image, max_bytes=_MAX_IMAGE_BYTES)
        shown = fields.get("name", "").strip() or "the image"
        await run_in_threadpool(_check, image, shown, settings)
        export, made = await find_export(job, bundle, settings, database, blobs, folder)
        path = await run_in_threadpool(as_file, export, made.num_bytes, folder / "onnx.zip")
        classify = partial(_classify, path, image, folder)
        return await to_thread.run_sync(classify, limiter=_room)


def _check(image: Path, shown: str, settings: Settings) -> None:
    check_image(image.read_bytes(), shown, settings)


def _classify(export: Path, image: Path, folder: Path) -> PredictionView:
    model = MODEL_FILES["int8"]
    try:
        with zipfile.ZipFile(export) as archive:
            for name in (model, "model.json"):
                archive.extract(name, folder)
    except (KeyError, zipfile.BadZipFile) as error:
        raise NotFoundError(f"the network is damaged ({error}); run the job again") from error
    command = [sys.executable, "-m", "tinytl.onnx_export.predict", "--json", str(image)]
    command += ["--model", str(folder / model)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"the image was not classified within {_SECONDS} s; try again later",
            retry_after_seconds=_SECONDS,
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.splitlines() or ["no reason was given"])[-1]
        raise InputError(f"the image can't be classified: {reason.removeprefix(f'{image}: ')}")
    found: dict[str, float] = json.loads(done.stdout)["probabilities"]
    classes = [ClassProbability(name=name, probability=p) for name, p in found.items()]
    return PredictionView(label=classes[0].name, probabilities=classes)
