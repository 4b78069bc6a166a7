"""Commands over HTTP: jobs submitted, listed, watched, fetched and steered on a server."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.adapt import add_job_options, evaluation_json, job_request, result_text
from service.cli.command import FAILED, AddCommand, Answer, connected, count
from service.errors import InputError, NotFoundError, ServiceError

if TYPE_CHECKING:
    from service.client import Client
    from service.console import Meter
    from service.views.schemas import DatasetView, EventView, JobView

_WATCHING_PATIENCE_SECONDS = 600.0
"""One that has seen its server waits until it is back."""
_ID_LENGTH = 32
_SHOWN_ID_LENGTH = 8
_SEARCHED_JOBS = 1_000
_MAX_NAME = 32


class WatchingStoppedError(ServiceError):
    """The user has seen enough; the job goes on."""


def add_jobs(add: AddCommand) -> None:
    submit = add("submit", _submit, "send images and queue a job on a server")
    submit.add_argument(
        "data", metavar="DATA", help="folder, zip or tar of labelled images, or a dataset's id"
    )
    add_job_options(submit, supernet_help="an id of the server's /supernets (the limits choose)")
    submit.add_argument(
        "--priority", help="which queued jobs are taken first: high, normal, low (normal)"
    )
    submit.add_argument(
        "--webhook", metavar="URL", help="the job is posted there once it has ended"
    )
    submit.add_argument("--watch", action="store_true", help="stay and show how far the job is")

    listing = add("list", _list, "the jobs of a server, newest first")
    listing.add_argument(
        "--status", metavar="STATUS", help="queued, running, paused, succeeded, ..."
    )
    listing.add_argument("--dataset", metavar="ID", help="jobs over this dataset")
    listing.add_argument("--limit", type=count, default=20, help="how many (20)")

    watch = add(
        "watch", _watch, "show how far a job is until it has ended; Ctrl-C leaves it running"
    )
    download = add("download", _download, "fetch a finished job's checkpoint")
    download.add_argument(
        "--output", type=Path, metavar="FILE", help="a file or folder (./tinyfit-JOB.zip)"
    )
    prioritize = add("prioritize", _prioritize, "let a job wait for shorter or longer")
    steering = [
        add(name, partial(_steer, action=name), text)
        for name, text in (
            ("cancel", "end a job"),
            ("pause", "let a job rest until it is resumed"),
            ("resume", "go on with a paused job"),
            ("retry", "go on with a failed or cancelled job"),
            ("delete", "remove a job that does not run, with its checkpoint"),
        )
    ]
    of_one_job = (watch, download, prioritize, *steering)
    for command in of_one_job:
        command.add_argument("job", metavar="JOB", help="its id, or how the id begins")
    prioritize.add_argument("priority", metavar="PRIORITY", help="high, normal, low")
    for command in (submit, listing, *of_one_job):
        command.add_argument("--url", help="of the server (TINYFIT_URL, or http://127.0.0.1:8000)")


def _submit(options: argparse.Namespace) -> Answer:
    from service.console import Meter

    job_request(options, "", options.supernet)  # what is wrong is said before anything is sent
    meter = Meter(sys.stderr)
    with connected(options) as client:
        dataset = _dataset(client, options.data, meter, skip_broken=options.skip_broken)
        request = job_request(options, dataset.id, options.supernet)
        name = options.name or dataset.name
        job = client.submit(request.model_copy(update={"name": name}))
    if options.watch:
        meter.note(f"job {job.id}")
        return _watch_to_the_end(options, job.id, meter)
    text = f"job {job.id} is {job.status.value}: `tinyfit watch {_short(job)}` shows how far it is"
    return Answer(job.model_dump(mode="json"), text)


def _dataset(client: Client, data: str, meter: Meter, *, skip_broken: bool | None) -> DatasetView:
    """The dataset at data, which is sent; or the one whose id data is."""
    from service.console import printable

    if not Path(data).exists() and len(data) == _ID_LENGTH and data.isalnum():
        return client.dataset(data)
    dataset = client.upload(
        Path(data),
        on_progress=lambda done, total: meter.show("send images", done / total),
        skip_broken=skip_broken,
    )
    meter.close()
    for note in dataset.report.notes if dataset.report else []:
        meter.note(f"note: {printable(note)}")
    return dataset


def _list(options: argparse.Namespace) -> Answer:
    from service.console import printable
    from service.contract.status import Status
    from tinytl.units import format_bytes

    status = options.status
    if status is not None and status not in list(Status):
        raise InputError(f"no such status: {status!r}; it is one of {', '.join(Status)}")
    with connected(options) as client:
        found = client.jobs(status=status and Status(status), dataset=options.dataset)
        jobs = list(islice(found, options.limit))
    lines = [
        f"{_short(job):<10}{job.status.value:<11}{job.priority.value:<9}{job.progress:>4.0%}  "
        f"{job.created_at.astimezone():%Y-%m-%d %H:%M}  "
        f"{format_bytes(job.memory_limit_bytes):>9}  {_accuracy(job):>6}  "
        f"{printable(job.name)[:_MAX_NAME]}"
        for job in jobs
    ]
    head = (
        f"{'JOB':<10}{'STATUS':<11}{'PRIORITY':<9}{'DONE':>4}  {'CREATED':<16}  {'LIMIT':>9}  "
        f"{'TEST':>6}  NAME"
    )
    text = "\n".join([head, *lines]) if jobs else "no jobs"
    return Answer({"jobs": [job.model_dump(mode="json") for job in jobs]}, text)


def _watch(options: argparse.Namespace) -> Answer:
    from service.console import Meter

    with connected(options) as client:
        job = find_job(client, options.job)
    return _watch_to_the_end(options, job.id, Meter(sys.stderr))


def _watch_to_the_end(options: argparse.Namespace, job_id: str, meter: Meter) -> Answer:
    short = job_id[:_SHOWN_ID_LENGTH]
    try:
        with connected(options, _WATCHING_PATIENCE_SECONDS) as client:
            job = client.wait(job_id, partial(_show, meter))
    except KeyboardInterrupt:
        raise WatchingStoppedError(
            f"stopped watching; job {short} goes on. `tinyfit watch {short}` shows it again, "
            f"`tinyfit cancel {short}` ends it"
        ) from None
    finally:
        meter.close()
    as_json = job.model_dump(mode="json")
    if job.result is not None and job.result.headline is not None:
        with connected(options, _WATCHING_PATIENCE_SECONDS) as client:
            as_json["evaluation"] = evaluation_json(client.evaluation(job_id))
    if job.result is None:
        text = f"job {short} {job.status.value}" + (f": {job.error}" if job.error else "")
        return Answer(as_json, text, FAILED)
    return Answer(as_json, result_text(job, f"`tinyfit download {short}` fetches it"))


def _show(meter: Meter, found: EventView | JobView) -> None:
    from service.console import describe_event
    from service.views.schemas import JobView

    if not isinstance(found, JobView):
        meter.note(describe_event(found))
    elif not found.status.is_final:
        left = None
        if found.estimated_finish_at is not None:
            left = max(0.0, (found.estimated_finish_at - datetime.now(UTC)).total_seconds())
        waits = found.status.value != "running"
        stage = found.status.value if waits else found.stage or "start"
        meter.show(stage, found.progress, left)


def _download(options: argparse.Namespace) -> Answer:
    from service.console import Meter
    from tinytl.units import format_bytes

    meter = Meter(sys.stderr)
    with connected(options) as client:
        job = find_job(client, options.job)
    target: Path = options.output or Path()
    if target.is_dir():
        target /= f"tinyfit-{_short(job)}.zip"
    with connected(options, _WATCHING_PATIENCE_SECONDS) as client:
        job = client.download(
            job.id, target, lambda done, total: meter.show("download", done / total)
        )
    meter.close()
    assert job.result is not None
    assert job.result.checkpoint is not None
    checkpoint = job.result.checkpoint
    return Answer(
        {"job": job.id, "path": str(target), **checkpoint.model_dump(exclude={"url"})},
        f"{target} ({format_bytes(checkpoint.bytes)})",
    )


def _prioritize(options: argparse.Namespace) -> Answer:
    from service.contract.status import Priority

    if options.priority not in list(Priority):
        raise InputError(
            f"no such priority: {options.priority!r}; it is one of {', '.join(Priority)}"
        )
    with connected(options) as client:
        job = client.prioritize(find_job(client, options.job).id, Priority(options.priority))
    text = f"job {_short(job)} is {job.status.value}, its priority {job.priority.value}"
    return Answer(job.model_dump(mode="json"), text)


def _steer(options: argparse.Namespace, *, action: str) -> Answer:
    with connected(options) as client:
        job = find_job(client, options.job)
        short = _short(job)
        if action == "delete":
            client.delete(job.id)
            return Answer({"id": job.id, "deleted": True}, f"job {short} is deleted")
        steer = {
            "cancel": client.cancel,
            "pause": client.pause,
            "resume": client.resume,
            "retry": client.retry,
        }
        job = steer[action](job.id)
    text = f"job {short} is {job.status.value}"
    if job.stop_request is not None:
        text += f" and asked to {job.stop_request.value}"
    return Answer(job.model_dump(mode="json"), text)


def find_job(client: Client, text: str) -> JobView:
    """The job whose id is text, or begins with it among the newest ones."""
    if len(text) >= _ID_LENGTH:
        return client.job(text)
    found = [job for job in islice(client.jobs(), _SEARCHED_JOBS) if job.id.startswith(text)]
    if not text or not found:
        raise NotFoundError(
            f"none of the newest {_SEARCHED_JOBS} jobs has an id that begins with {text!r}; "
            f"`tinyfit list` shows them"
        )
    if len(found) > 1:
        raise InputError(
            f"{len(found)} jobs have an id that begins with {text!r}; write more of it"
        )
    return found[0]


def _short(job: JobView) -> str:
    return job.id[:_SHOWN_ID_LENGTH]


def _accuracy(job: JobView) -> str:
    if job.result is None:
        return ""
    return f"{job.result.headline_accuracy or job.result.test_accuracy:.1%}"
