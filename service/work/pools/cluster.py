"""Tasks on a Ray cluster. Only a job's process imports this, and only where Ray is asked for."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch

from service.errors import ClusterLostError, ServiceError, TaskLostError
from service.work.pools.news import Done, Failed, Started
from service.work.pools.patience import Patience
from service.work.pools.pool import OnNews
from service.work.pools.room import Room
from service.work.pools.tasks import Parcel, Shared, Task
from service.work.processes.lifeline import StopCheck
from tinytl.errors import CancelledError

# Ray would end this process by itself, as if it had died, were this shorter than our patience.
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "3600")

import ray
from ray.exceptions import RayError, RayTaskError

from service.work.pools.node import own_version, run_on_node

logger = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.2
_CONNECT_EVERY_SECONDS = 1.0
_ASK_EVERY_SECONDS = 2.0
_MOST_LOSSES = 3
"""So often a task is given again after the process or node that ran it has died."""


@dataclass(eq=False)
class _Flight:
    """A task on its way. task: what is left of it."""

    number: int
    task: Task
    is_started: bool = False
    num_lost: int = 0


class RayPool:
    """Tasks on the cluster at an address, as many at once as it has processors for, and GPUs where
    each task takes a share of one.

    The cluster holds nothing that matters: a task whose node has died is given again, from its
    last checkpoint. Connects when the first tasks come; leave it to disconnect.

    say is told while tasks wait for a node that the cluster does not have.
    """

    def __init__(
        self,
        address: str,
        shared: Shared,
        should_stop: StopCheck,
        *,
        patience_seconds: float,
        gpus_per_task: float = 0.0,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._address, self._shared, self._should_stop = address, shared, should_stop
        self._gpus_per_task, self._say = gpus_per_task, say
        self._room = Room(_taken_by_task(gpus_per_task), self._tell)
        self._patience = Patience(patience_seconds)
        self._ask_every_seconds = min(_ASK_EVERY_SECONDS, patience_seconds / 4)
        self._asked = float("-inf")
        self._reference: Any = None
        self._start: Any = None
        self._node_id = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patience.renew()
        ray.shutdown()  # whatever of this job still runs there ends, too
        self._patience.end()

    def run(self, tasks: Sequence[Task], on_news: OnNews) -> None:
        self._patience.renew()
        if self._start is None:
            self._connect()
        flights: dict[Any, _Flight] = {}
        try:
            for number, task in enumerate(tasks):
                self._give(flights, _Flight(number, task))
            while flights:
                self._look(flights, on_news)
        finally:
            self._patience.renew()
            for stream in flights:
                with suppress(Exception):  # then shutdown ends it, or the end of this process
                    ray.cancel(stream, force=True)
            self._patience.rest()

    def _connect(self) -> None:
        on_term = signal.getsignal(signal.SIGTERM)
        while not ray.is_initialized():
            try:
                ray.init(
                    address=self._address,
                    namespace="tinyfit",
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                )
            except RuntimeError as error:
                if "ersion mismatch" in str(error):
                    raise ServiceError(
                        f"the Ray cluster at {self._address} is not of this worker's versions: "
                        f"{error}"
                    ) from error
                self._wait_to_connect(error)
            except (ConnectionError, RayError, ValueError, OSError) as error:
                self._wait_to_connect(error)
        signal.signal(signal.SIGTERM, on_term)  # Ray takes it for itself
        with _calls_to_cluster():
            self._node_id = ray.get_runtime_context().get_node_id()
            self._patience.rest()  # many images take their time
            self._reference = ray.put(Parcel.for_any_machine(self._shared))
            self._start = ray.remote(
                num_cpus=torch.get_num_threads(),
                num_gpus=self._gpus_per_task or None,  # with some, each has a process of its own
                max_retries=0,
                num_returns="streaming",
            )(run_on_node)
        self._patience.renew()

    def _wait_to_connect(self, error: Exception) -> None:
        logger.warning("no Ray cluster at %s yet: %s", self._address, error)
        self._check_stop()
        time.sleep(_CONNECT_EVERY_SECONDS)

    def _give(self, flights: dict[Any, _Flight], flight: _Flight) -> None:
        flight.is_started = False
        with _calls_to_cluster():
            stream = self._start.remote(
                flight.task,
                [self._reference],
                num_threads=torch.get_num_threads(),
                gpus_per_task=self._gpus_per_task,
                tinyfit_version=own_version(),
            )
        flights[stream] = flight

    def _look(self, flights: dict[Any, _Flight], on_news: OnNews) -> None:
        """Wait a little for news, and hear those that there are."""
        with _calls_to_cluster():
            ready, _ = ray.wait(list(flights), num_returns=1, timeout=_LOOK_EVERY_SECONDS)
        self._check_stop()
        if time.monotonic() - self._asked >= self._ask_every_seconds:
            self._room.look(self._ask())
            if not any(flight.is_started for flight in flights.values()):
                self._should_stop()  # a beat: in a busy cluster, tasks wait
        for stream in ready:
            flight = flights[stream]
            try:
                news = ray.get(next(stream))
            except RayTaskError as error:
                raise ServiceError(
                    f"a node of the Ray cluster can't run tinyfit's tasks: {error}"
                ) from error
            except (RayError, StopIteration) as error:
                del flights[stream]
                self._give_again(flights, flight, error)
                continue
            self._should_stop()  # a beat
            if isinstance(news, Failed):
                del flights[stream]
                raise news.error
            if isinstance(news, Done):
                del flights[stream]
            elif isinstance(news, Started):
                flight.is_started = True
            flight.task = flight.task.after(news)
            self._patience.rest()
            on_news(flight.number, news)
            self._patience.renew()

    def _give_again(self, flights: dict[Any, _Flight], flight: _Flight, error: Exception) -> None:
        """After a death; where the whole cluster has died, it is not the task's."""
        self._ask()
        flight.num_lost += 1
        reason = str(error).partition("\n")[0]
        if flight.num_lost > _MOST_LOSSES:
            raise TaskLostError(
                f"a task died {flight.num_lost} times on the Ray cluster, at last so: {reason}"
            )
        logger.warning("a task is given to the Ray cluster again: %s", reason)
        self._give(flights, flight)

    def _ask(self) -> list[dict[str, Any]]:
        """Ask the cluster whether it lives; its nodes. Where it is gone, this may never return."""
        with _calls_to_cluster():
            nodes = ray.nodes()
        if not any(node["NodeID"] == self._node_id and node["Alive"] for node in nodes):
            raise ClusterLostError(f"the Ray node of this machine, of {self._address}, is gone")
        self._asked = time.monotonic()
        self._patience.renew()
        found: list[dict[str, Any]] = nodes
        return found

    def _tell(self, message: str) -> None:
        logger.warning("%s", message)
        self._patience.rest()
        self._say(message)
        self._patience.renew()

    def _check_stop(self) -> None:
        if self._should_stop.quietly():
            raise CancelledError("the job was asked to stop")


def _taken_by_task(gpus: float) -> dict[str, float]:
    """By Ray's names."""
    taken: dict[str, float] = {"CPU": torch.get_num_threads()}
    return {**taken, "GPU": gpus} if gpus > 0 else taken


@contextmanager
def _calls_to_cluster() -> Iterator[None]:
    """What Ray raises when its cluster is not there any more."""
    try:
        yield
    except (RayError, ConnectionError, RuntimeError, OSError) as error:
        raise ClusterLostError(f"the Ray cluster is lost: {error}") from error
