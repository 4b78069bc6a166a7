"""What runs on a node of a Ray cluster: one task, and the state that tasks share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any

import ray

from service.errors import ServiceError
from service.work.pools.attending import attend
from service.work.pools.news import Done, Failed, News
from service.work.pools.tasks import Parcel, Shared, Task

_latest: list[tuple[str, Shared]] = []
"""What this process has last opened, under the id of its object: one at most."""


def run_on_node(
    task: Task, references: list[Any], *, num_threads: int, tinyfit_version: str
) -> Iterator[News]:
    """Run a task; references: the one to what tasks share, in a list so that Ray leaves it."""
    if tinyfit_version != own_version():
        yield Failed(
            ServiceError(
                f"the Ray node {ray.util.get_node_ip_address()} has tinyfit {own_version()}, but "
                f"the worker has {tinyfit_version}: install the same version on all nodes"
            )
        )
        return
    news: SimpleQueue[News] = SimpleQueue()
    threading.Thread(
        target=attend,
        args=(task, lambda: _open(references[0]), news.put),
        kwargs={"num_threads": num_threads},
        daemon=True,
    ).start()
    while True:
        yield (latest := news.get())
        if isinstance(latest, Done | Failed):
            return


def own_version() -> str:
    return version("tinyfit")


def _open(reference: Any) -> Shared:
    """As the process that ran an earlier task has it, or from this machine's object store."""
    name = reference.hex()
    if not _latest or _latest[0][0] != name:
        parcel: Parcel = ray.get(reference)
        _latest[:] = [(name, parcel.open())]
    return _latest[0][1]
