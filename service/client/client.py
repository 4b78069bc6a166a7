"""A client of the service: `Client(url, api_key)`. It never imports torch.

Every method raises a `ClientError`: `ProblemError` where the server refused, with what it said,
and `ConnectionFailedError` where it could not be reached. What may pass (429, 503, a broken
connection) is tried again for patience_seconds, where doing it twice does no harm.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter

from service.client.download import Progress, download
from service.client.events import follow
from service.client.http import TIMEOUT, Connection, parse
from service.client.settings import DEFAULT_URL
from service.contract.requests import JobRequest
from service.contract.status import Priority, Status
from service.datasets.names import name_of, one_line
from service.datasets.packing import packed
from service.errors import ConflictError
from service.views.evaluation import EvaluationView, PredictionView
from service.views.results import FrontView
from service.views.schemas import (
    AttemptView,
    DatasetView,
    EventView,
    JobView,
    SupernetView,
    TrialView,
)

_PAGE = 1_000
_UPLOAD_TIMEOUT = httpx.Timeout(3600.0, connect=TIMEOUT.connect)
"""The server answers once it has decoded every image."""
_DATASETS = TypeAdapter(list[DatasetView])
_JOBS = TypeAdapter(list[JobView])
_TRIALS = TypeAdapter(list[TrialView])
_ATTEMPTS = TypeAdapter(list[AttemptView])
_SUPERNETS = TypeAdapter(list[SupernetView])


class Client:
    """A server's datasets and jobs. Close it, or use it as a context manager.

    Raises InputError for a url or a key that can't be one.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        patience_seconds: float = 30.0,
    ) -> None:
        self._connection = Connection(url, api_key, patience_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return self._connection.url

    def upload(
        self,
        path: Path,
        name: str | None = None,
        on_progress: Progress | None = None,
        *,
        skip_broken: bool | None = None,
    ) -> DatasetView:
        """Upload a zip, tar or folder of labelled images; known images give the known dataset.

        on_progress is called with the bytes sent and their number. skip_broken says whether to go
        on without images that can't be used; None leaves it to the server. Raises DatasetError
        where path is none of these.
        """
        fields = {"name": one_line(name or name_of(path))}
        if skip_broken is not None:
            fields["skip_broken"] = str(skip_broken).lower()
        with packed(path) as archive, _WatchedFile(archive, on_progress) as file:
            response = self._connection.send(
                "POST",
                "/datasets",
                repeatable=True,
                files={"file": ("images", file, "application/octet-stream")},
                data=fields,
                timeout=_UPLOAD_TIMEOUT,
            )
        return parse(DatasetView, response)

    def dataset(self, dataset_id: str) -> DatasetView:
        return parse(DatasetView, self._connection.get(_path("datasets", dataset_id)))

    def datasets(self) -> Iterator[DatasetView]:
        """All datasets, newest first, fetched page by page."""
        return self._pages("/datasets", _DATASETS)

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a dataset that no job is over, with its images."""
        self._connection.send("DELETE", _path("datasets", dataset_id), repeatable=False)

    def submit(self, request: JobRequest, idempotency_key: str | None = None) -> JobView:
        """Queue a job, once however often it has to be sent.

        A key of the caller's own makes the call repeatable across programs, too.
        """
        response = self._connection.send(
            "POST",
            "/jobs",
            repeatable=True,
            json=request.model_dump(mode="json", exclude_unset=True),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return parse(JobView, response)

    def job(self, job_id: str) -> JobView:
        return parse(JobView, self._connection.get(_path("jobs", job_id)))

    def jobs(
        self, *, status: Status | None = None, dataset: str | None = None
    ) -> Iterator[JobView]:
        """Jobs, newest first, fetched page by page."""
        wanted = None if status is None else status.value
        return self._pages("/jobs", _JOBS, status=wanted, dataset=dataset)

    def trials(self, job_id: str) -> list[TrialView]:
        """The candidates scored so far, in order."""
        path = f"{_path('jobs', job_id)}/trials"
        found: list[TrialView] = []
        while True:
            after = found[-1].number if found else None
            page = parse(_TRIALS, self._connection.get(path, after=after, limit=_PAGE))
            found += page
            if len(page) < _PAGE:
                return found

    def front(self, job_id: str) -> FrontView:
        """What accuracy a job's search has found from how much memory on."""
        return parse(FrontView, self._connection.get(f"{_path('jobs', job_id)}/front"))

    def evaluation(self, job_id: str) -> EvaluationView:
        """How well a finished job's network tells each class of the test images."""
        return parse(EvaluationView, self._connection.get(f"{_path('jobs', job_id)}/evaluation"))

    def predict(self, job_id: str, image: Path) -> PredictionView:
        """What a finished job's network makes of an image file."""
        with image.open("rb") as file:
            response = self._connection.send(
                "POST",
                f"{_path('jobs', job_id)}/predict",
                repeatable=False,
                files={"file": (image.name, file)},
                timeout=_UPLOAD_TIMEOUT,
            )
        return parse(PredictionView, response)

    def attempts(self, job_id: str) -> list[AttemptView]:
        """The workers' turns at a job, in order."""
        return parse(_ATTEMPTS, self._connection.get(f"{_path('jobs', job_id)}/attempts"))

    def follow(self, job_id: str, after: int = 0) -> Iterator[EventView | JobView]:
        """What happens to a job, from the event after `after` on, until the job has ended.

        Each event comes once and in order, across broken connections; between them comes the
        job itself, whenever it has changed.
        """
        return follow(self._connection, _path("jobs", job_id), after)

    def events(self, job_id: str, after: int = 0) -> Iterator[EventView]:
        """The events of `follow`, without the job."""
        return (found for found in self.follow(job_id, after) if isinstance(found, EventView))

    def wait(
        self, job_id: str, on_change: Callable[[EventView | JobView], None] | None = None
    ) -> JobView:
        """Wait until a job has ended, and return it."""
        for found in self.follow(job_id):
            if on_change is not None:
                on_change(found)
        return self.job(job_id)

    def prioritize(self, job_id: str, priority: Priority) -> JobView:
        """Let a job wait for shorter or longer."""
        response = self._connection.send(
            "PATCH",
            _path("jobs", job_id),
            repeatable=True,
            json={"priority": priority.value},
        )
        return parse(JobView, response)

    def cancel(self, job_id: str) -> JobView:
        """End a job; one that runs ends within seconds."""
        return self._act(job_id, "cancel", repeatable=True)

    def pause(self, job_id: str) -> JobView:
        """Let a job rest until it is resumed."""
        return self._act(job_id, "pause", repeatable=True)

    def resume(self, job_id: str) -> JobView:
        """Queue a paused job again; it goes on from what is finished."""
        return self._act(job_id, "resume", repeatable=True)

    def retry(self, job_id: str) -> JobView:
        """Queue a failed or cancelled job again; it goes on from what is finished."""
        return self._act(job_id, "retry", repeatable=False)

    def delete(self, job_id: str) -> None:
        """Remove a job that does not run, with its files."""
        self._connection.send("DELETE", _path("jobs", job_id), repeatable=False)

    def download(self, job_id: str, path: Path, on_progress: Progress | None = None) -> JobView:
        """Get a finished job's bundle into the file path, and return the job.

        Goes on with what a broken or killed download left, checks the SHA-256, and leaves path
        alone until everything is there. Raises ConflictError where there is none, ChecksumError
        for damage on the way.
        """
        job = self.job(job_id)
        if job.result is None or job.result.checkpoint is None:
            raise ConflictError(
                f"job {job_id!r} is {job.status.value} and has no checkpoint; only one that has "
                f"succeeded does"
            )
        bundle = f"{_path('jobs', job_id)}/checkpoint"
        download(self._connection, bundle, job.result.checkpoint, path, on_progress)
        return job

    def supernets(self) -> list[SupernetView]:
        """What jobs can start from."""
        return parse(_SUPERNETS, self._connection.get("/supernets"))

    def _act(self, job_id: str, action: str, *, repeatable: bool) -> JobView:
        path = f"{_path('jobs', job_id)}/{action}"
        return parse(JobView, self._connection.send("POST", path, repeatable=repeatable))

    def _pages(
        self, path: str, kind: TypeAdapter[list[Any]], **params: str | None
    ) -> Iterator[Any]:
        """Page after page: each but the last one links to the next (RFC 8288)."""
        cursor: str | None = None
        while True:
            response = self._connection.get(path, limit=_PAGE, cursor=cursor, **params)
            yield from parse(kind, response)
            following = response.links.get("next")
            if following is None:
                return
            cursor = httpx.URL(following["url"]).params.get("cursor")


class _WatchedFile(io.FileIO):
    """A file that tells how much of it has been read."""

    def __init__(self, path: Path, on_progress: Progress | None) -> None:
        super().__init__(path)
        self._num_bytes = path.stat().st_size
        self._on_progress = on_progress

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        if self._on_progress is not None:
            self._on_progress(self.tell(), self._num_bytes)
        return data


def _path(collection: str, row_id: str) -> str:
    return f"/{collection}/{quote(row_id, safe='')}"
