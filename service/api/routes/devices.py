"""Routes of what trains a finished job's network further on a device."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from service.api.deps import BlobsDep, DatabaseDep, JobId, SettingsDep
from service.api.document.examples import DEVICE_TRAINER as DEVICE_TRAINER_EXAMPLE
from service.api.document.openapi import answers, problems
from service.api.http.routes import ShortBodyRoute
from service.api.routes.checkpoint import find_content, send_bundle
from service.api.routes.exports import as_file, finished
from service.contract.requests import JobSettings
from service.errors import ConflictError, NotFoundError, UnavailableError
from service.record import jobs as record
from service.record.db.models import Artifact, Job
from service.record.files.artifacts import DEVICE_PROGRAM
from service.record.files.blobs import Blobs
from service.settings import Settings
from service.views.device import DeviceTargetView, DeviceView
from tinytl.description.method import Method
from tinytl.errors import BundleError
from tinytl.native.build import NATIVE, TARGETS, BuildError, build_trainer, built_trainer
from tinytl.native.formats.program_file import read_program
from tinytl.native.methods import refusal
from tinytl.native.package import MOST_TRAINER_BYTES, pack, process_bytes, readme

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ShortBodyRoute)

_OTHERS = {name: text for name, text in TARGETS.items() if name != NATIVE}
"""This machine is the server: it is none that a trainer is sent to."""
_PROGRAM_SECONDS = 120
_ZIP = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
_room = CapacityLimiter(1)
"""For compilers and processes with torch: one at a time."""

Target = Annotated[
    str, InPath(max_length=64, description=f"What it runs on: {', '.join(_OTHERS)}.")
]


@router.get(
    "/{job_id}/device",
    summary="List what a finished job's network can be trained on further",
    response_model=DeviceView,
    responses=answers(
        DEVICE_TRAINER_EXAMPLE, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
    ),
)
def get_device_trainer(job_id: JobId, database: DatabaseDep) -> DeviceView:
    """Devices that there is a trainer for, its size and the memory that all of it takes."""
    job, _ = finished(database, job_id)
    program = record.get_artifact(database, job.id, DEVICE_PROGRAM)
    return DeviceView(
        program_bytes=None if program is None else program.num_bytes,
        targets=[_target_view(job, program, target) for target in _OTHERS],
    )


def _target_view(job: Job, program: Artifact | None, target: str) -> DeviceTargetView:
    binary_bytes, unavailable = None, _refusal(job)
    if unavailable is None:
        try:
            built = built_trainer(target)
            binary_bytes = None if built is None else built.stat().st_size
        except BuildError as error:
            unavailable = str(error)
    needs = None if program is None else program.detail
    return DeviceTargetView(
        target=target,
        description=_OTHERS[target],
        url=f"/jobs/{job.id}/device/{target}",
        unavailable=unavailable,
        binary_bytes=binary_bytes,
        predicted_process_bytes=None
        if needs is None
        else process_bytes(
            needs["arena_bytes"], needs["mapped_bytes"], binary_bytes or MOST_TRAINER_BYTES
        ),
    )


def _refusal(job: Job) -> str | None:
    assert job.result is not None
    return refusal(Method(job.result["method"]))


@router.get(
    "/{job_id}/device/{target}",
    summary="Download what trains a finished job's network further on a device",
    response_class=FileResponse,
    responses={
        HTTPStatus.OK: {"content": _ZIP},
        HTTPStatus.PARTIAL_CONTENT: {
            "description": "The part that Range asks for",
            "content": _ZIP,
        },
        **problems(
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        ),
    },
)
async def get_device_package(
    request: Request,
    job_id: JobId,
    target: Target,
    settings: SettingsDep,
    database: DatabaseDep,
    blobs: BlobsDep,
) -> Response:
    """A zip of `tinyfit-trainer`, one executable that needs no library, `program.tfp`, which it
    trains, and `README.txt`. Built when it is asked for, once for each kind of device."""
    job, bundle = await run_in_threadpool(finished, database, job_id)
    if target not in _OTHERS:
        raise NotFoundError(f"there is no target {target!r}; known are {', '.join(_OTHERS)}")
    refused = _refusal(job)
    if refused is not None:
        raise ConflictError(refused)
    there = await run_in_threadpool(record.get_artifact, database, job.id, DEVICE_PROGRAM)
    folder = tempfile.TemporaryDirectory(prefix="tinyfit-device-")
    package = _Package(job, bundle, target, Path(folder.name), settings, blobs)
    try:
        path = await to_thread.run_sync(package.make, there, limiter=_room)
        response = send_bundle(
            request,
            path,
            num_bytes=path.stat().st_size,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            filename=f"tinyfit-{job.id[:8]}-{target}.zip",
        )
    except BaseException:
        folder.cleanup()
        raise
    response.background = BackgroundTask(folder.cleanup)
    return response


class _Package:
    """The zip for a target, made in a folder."""

    def __init__(
        self,
        job: Job,
        bundle: Artifact,
        target: str,
        folder: Path,
        settings: Settings,
        blobs: Blobs,
    ) -> None:
        self._job = job
        self._bundle = bundle
        self._target = target
        self._folder = folder
        self._settings = settings
        self._blobs = blobs

    def make(self, there: Artifact | None) -> Path:
        """there: the job's program, which a job of an earlier version has none of. Raises
        ConflictError where the trainer can't be built."""
        try:
            trainer = build_trainer(self._target)
        except BuildError as error:
            raise ConflictError(f"the trainer can't be built: {error}") from error
        path = self._program_there(there) or self._make_program()
        program = read_program(path.read_bytes())
        takes = process_bytes(
            program.numbers["arena_bytes"], program.mapped_bytes, trainer.stat().st_size
        )
        packed = self._folder / "device.zip"
        pack(packed, trainer=trainer, program=path, text=readme(self._target, takes))
        return packed

    def _program_there(self, artifact: Artifact | None) -> Path | None:
        """None where there is none that the trainer of this version reads."""
        if artifact is None:
            return None
        path = self._file(artifact)
        try:
            read_program(path.read_bytes())
        except BundleError:
            return None
        return path

    def _file(self, artifact: Artifact) -> Path:
        content = find_content(artifact, self._settings, self._blobs)
        return as_file(content, artifact.num_bytes, self._folder / artifact.kind)

    def _make_program(self) -> Path:
        """In a process of its own, whose memory goes with it."""
        program = self._folder / "made.tfp"
        options = JobSettings.recorded(self._job.settings)
        command = [sys.executable, "-m", "tinytl.native", self._file(self._bundle), program]
        command += ["--label-smoothing", options.label_smoothing, "--seed", options.seed]
        command += ["--min-crop-scale", options.min_crop_scale]
        if options.learning_rate is not None:
            command += ["--learning-rate", options.learning_rate]
        if not options.horizontal_flip:
            command.append("--no-horizontal-flip")
        try:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, timeout=_PROGRAM_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"the program was not done within {_PROGRAM_SECONDS} s; try again later",
                retry_after_seconds=_PROGRAM_SECONDS,
            ) from error
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
            raise ConflictError(
                f"the network of job {self._job.id!r} can't be trained on a device: {reason}"
            )
        return program
