"""What Prometheus reads at /metrics: requests as they are counted here, jobs from the database."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.readiness import WORKER_SEEN_SECONDS
from service.api.streams import Streams
from service.record.database import Database, is_outage, now
from service.record.models import Job, Status
from service.record.presence import list_workers

_METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"))
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """One application's numbers, in a registry of its own."""

    def __init__(self, database: Database, streams: Streams) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "tinyfit_http_requests",
            "Requests answered, by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tinyfit_http_request_seconds",
            "From a request's arrival to the begin of its answer.",
            ("route", "method"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Service(database, streams))

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def render(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class MetricsMiddleware:
    """Counts every request, with what the route's pattern is rather than its path."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()
        is_answered = False

        def count(status: int) -> None:
            nonlocal is_answered
            is_answered = True
            self._metrics.count(scope, status, time.perf_counter() - began_at)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not is_answered:  # the framework's last handler answers, further out
                count(500)
            raise


class _Service(Collector):
    """The state of jobs, workers and streams at the moment of reading."""

    def __init__(self, database: Database, streams: Streams) -> None:
        self._database = database
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "event_streams", "Clients that follow a job's events.", self._streams.num_open
        )
        try:
            of_database = [*self._jobs(), self._workers()]
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            yield _gauge("database_up", "Whether the database answers.", 0)
            return
        yield _gauge("database_up", "Whether the database answers.", 1)
        yield from of_database

    def _jobs(self) -> Iterator[Metric]:
        with self._database.reading() as session:
            counts = select(Job.status, func.count().label("num_jobs")).group_by(Job.status)
            num_jobs = {row.status: row.num_jobs for row in session.execute(counts)}
            oldest = select(now() - func.min(Job.created_at)).where(Job.status == Status.QUEUED)
            queue_seconds = session.scalar(oldest)
        jobs = GaugeMetricFamily("tinyfit_jobs", "Jobs, by status.", labels=("status",))
        for status in Status:
            jobs.add_metric((status.value,), num_jobs.get(status, 0))
        yield jobs
        help_text = "How long ago the oldest queued job was made; 0 where none is queued."
        yield _gauge("queue_age_seconds", help_text, queue_seconds or 0.0)

    def _workers(self) -> Metric:
        workers = list_workers(self._database, WORKER_SEEN_SECONDS)
        return _gauge("workers", "Workers heard of lately.", len(workers))


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tinyfit_{name}", help_text, value)
