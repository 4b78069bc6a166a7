"""What Prometheus reads at /metrics: requests as they are counted here, jobs from the database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http.streams import Streams
from service.api.readiness import WORKER_SEEN_SECONDS
from service.contract.status import Outcome, Priority, Status
from service.record.db.database import Database, is_outage
from service.record.presence import list_workers
from service.record.statistics import read_statistics

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
        found = read_statistics(self._database)
        yield _family("jobs", "Jobs, by status.", "status", _all_of(Status, found.num_jobs))
        yield _family(
            *("queued_jobs", "Queued jobs, by priority.", "priority"),
            _all_of(Priority, found.num_queued),
        )
        yield _gauge(
            "queue_age_seconds",
            "How long ago the oldest queued job was made; 0 where none is queued.",
            found.queue_age_seconds,
        )
        yield _family(
            *("ended_attempts", "Attempts that ended within the last hour.", "outcome"),
            _all_of(Outcome, found.num_ended_attempts),
        )
        stages = found.finished_stages.items()
        yield _family(
            *("finished_stages", "Stages finished within the last hour.", "stage"),
            {stage: finished.num for stage, finished in stages},
        )
        yield _family(
            *("finished_stages_seconds", "How long those took altogether.", "stage"),
            {stage: finished.seconds for stage, finished in stages},
        )
        yield _gauge(
            "trials_per_minute",
            "Candidates scored a minute, over the last five.",
            found.trials_per_minute,
        )

    def _workers(self) -> Metric:
        workers = list_workers(self._database, WORKER_SEEN_SECONDS)
        return _gauge("workers", "Workers heard of lately.", len(workers))


def _all_of(kind: type[StrEnum], counts: Mapping[Any, int]) -> dict[str, int]:
    return {value.value: counts.get(value, 0) for value in kind}


def _family(
    name: str, help_text: str, label: str, values: Mapping[str, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tinyfit_{name}", help_text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tinyfit_{name}", help_text, value)
