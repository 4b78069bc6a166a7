"""`tinyfit adapt`: a whole job without a server, over a private database in the output folder.

The job is the very one that a server would run: killed or interrupted, it goes on where it was.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

from search.errors import SearchError
from service.commands.output_folder import (
    STATE,
    check_apart,
    locked,
    removed_unless_used,
    signals_set,
)
from service.console import Meter, printable
from service.contract.devices import with_device
from service.contract.requests import JobRequest, JobSettings
from service.contract.status import Status
from service.datasets.fit import with_fit
from service.datasets.names import name_of
from service.datasets.store import import_dataset
from service.errors import BlobError, InputError, ServiceError
from service.feasibility import check_feasible, with_supernet
from service.record.db.database import Database
from service.record.db.models import Job
from service.record.files.artifacts import BUNDLE, artifact_path, remove_leftovers
from service.record.files.blobs import hash_of, open_blobs
from service.record.files.collecting import collect
from service.record.jobs import (
    create_job,
    delete_job,
    get_artifact,
    get_job,
    list_jobs,
    requeue_job,
    retry_job,
)
from service.settings import Settings
from service.views.schemas import JobView, checkpoint_view
from service.work.worker import Worker

BUNDLE_NAME = "model.tinyfit.zip"
_SUPERNET_SHA256 = "supernet-sha256"
"""In the state: of the user's supernet file that the job was made with."""

_POLL_SECONDS = 0.3


class InterruptedJobError(ServiceError):
    """The user stopped the job; it can go on."""


class FailedJobError(ServiceError):
    """The job ended without a result."""


def adapt(
    data: Path, request: JobRequest, output: Path, settings: Settings, meter: Meter
) -> JobView:
    """Run the requested job on data, or go on with it; leave the bundle in the output folder."""
    state = output / STATE
    settings = settings.model_copy(
        update={"data_dir": state, "database_url": None, "artifact_url": None}
    )
    with ExitStack() as stack:
        check_apart(data, output)
        stack.enter_context(removed_unless_used(output))
        stack.enter_context(locked(output, "tinyfit adapt"))
        shutil.rmtree(settings.incoming_dir, ignore_errors=True)  # of a run that was killed
        database = Database(settings.resolved_database_url)
        stack.callback(database.close)
        database.upgrade()
        job = _find_or_create_job(data, request, output, settings, database, meter)
        if job.status is not Status.SUCCEEDED:
            job = _run(job.id, settings, database, meter)
        view = _deliver(job, output, settings, database)
        collect(open_blobs(settings, database), grace_seconds=0)  # nobody else is at it
        return view


def _find_or_create_job(
    data: Path,
    request: JobRequest,
    output: Path,
    settings: Settings,
    database: Database,
    meter: Meter,
) -> Job:
    dataset, _ = import_dataset(
        data,
        settings=settings,
        database=database,
        name=name_of(data) if data.is_file() else None,
        on_progress=lambda done, total: meter.show("read images", done / total),
    )
    for note in dataset.report["notes"] if dataset.report else []:
        meter.note(f"note: {printable(note)}")
    num_classes = len(dataset.classes)
    wanted = request.model_copy(
        update={"dataset": dataset.id, "name": request.name or dataset.name}
    )
    wanted = with_device(wanted, settings)
    wanted = with_fit(wanted, dataset)
    wanted = with_supernet(wanted, settings)
    check_feasible(wanted, num_classes=num_classes)
    made_with, sha256 = settings.data_dir / _SUPERNET_SHA256, _own_supernet_sha256(wanted)
    for job, _ in list_jobs(database):
        other = _differences(job, wanted)
        if not other and made_with.exists() and (there := made_with.read_text()) != sha256:
            other = [f"supernet sha256 {there} there, {sha256} now"]
        if job.status is Status.FAILED:
            if not other:
                return retry_job(database, job.id)
            delete_job(database, job.id)
            remove_leftovers(settings, job.id)
            continue
        if other:  # going on would mix two jobs
            raise InputError(
                f"{str(output)!r} holds a job with other arguments ({'; '.join(other)}); give "
                f"another --output, or remove that folder"
            )
        requeue_job(database, job.id)
        return job
    _check_supernet_file(wanted.supernet, settings)
    made_with.write_text(sha256)
    return create_job(database, wanted)[0]


def _own_supernet_sha256(wanted: JobRequest) -> str:
    """Empty where the supernet is none of the user's files."""
    path = Path(wanted.supernet)
    return hash_of(path) if path.is_file() else ""


def _check_supernet_file(supernet: str, settings: Settings) -> None:
    """A damaged file of the user's is refused before there is a job; other supernets are known."""
    if Path(supernet).is_file():
        from search.elastic.supernet import load_supernet  # imports torch

        try:
            load_supernet(supernet, settings.supernet_cache_dir.expanduser())
        except SearchError as error:
            raise InputError(str(error)) from error


def _differences(job: Job, wanted: JobRequest) -> list[str]:
    """How the arguments of a job differ from those wanted now; settings that its version did not
    know differ only where they are asked for."""
    defaults = JobSettings().model_dump(mode="json")
    there = {
        "data": job.dataset_id,
        "memory limit": job.memory_limit_bytes,
        "method": job.method,
        "supernet": job.supernet,
        **JobSettings.recorded(job.settings).model_dump(mode="json"),
    }
    asked = {
        "data": wanted.dataset,
        "memory limit": wanted.memory_limit,
        "method": wanted.method.value,
        "supernet": wanted.supernet,
        **wanted.settings.model_dump(mode="json"),
    }
    for name in defaults.keys() - job.settings.keys():
        if asked[name] == defaults[name]:
            there[name] = asked[name]
    return [
        f"{name} {_told(there.get(name))} there, {_told(value)} now"
        for name, value in asked.items()
        if there.get(name) != value
    ]


def _told(value: object) -> object:
    return "not named" if value is None else value


def _run(job_id: str, settings: Settings, database: Database, meter: Meter) -> Job:
    """Work on the job in a thread while this one shows how far it is."""
    stop = threading.Event()
    worker = Worker(settings, database, stop=stop)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set() and not get_job(database, job_id).status.is_final:
                worker.run_one()
        except BaseException as error:
            failures.append(error)
        finally:
            worker.leave()

    thread = threading.Thread(target=work, name="worker")
    with signals_set(stop):
        thread.start()
        while thread.is_alive():
            job = get_job(database, job_id)
            meter.show(job.stage or "start", job.progress)
            thread.join(_POLL_SECONDS)
    meter.close()
    if failures:
        raise failures[0]
    job = get_job(database, job_id)
    if not job.status.is_final:
        raise InterruptedJobError(
            f"stopped at {job.progress:.0%}; run the same command again to go on"
        )
    return job


def _deliver(job: Job, output: Path, settings: Settings, database: Database) -> JobView:
    bundle = get_artifact(database, job.id, BUNDLE)
    if job.status is not Status.SUCCEEDED or bundle is None:
        raise FailedJobError(f"the job {job.status.value}: {job.error or 'no reason was given'}")
    target = output / BUNDLE_NAME
    partial = output / f".{BUNDLE_NAME}.partial"
    try:
        if bundle.blob_sha256 is None:
            shutil.copyfile(artifact_path(settings, bundle), partial)
        else:
            open_blobs(settings, database).fetch(bundle.blob_sha256, partial, share=False)
    except (FileNotFoundError, BlobError) as error:
        raise FailedJobError(
            f"the result is gone ({error}); remove {str(output)!r} and run again"
        ) from error
    partial.replace(target)
    return JobView.of(job, checkpoint_view(bundle, target.resolve().as_uri()))
