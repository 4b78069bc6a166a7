"""What runs on a node of a Ray cluster: one task, and the state that tasks share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any

import ray
import torch

from service.errors import ServiceError
from service.work.pools.attending import attend
from service.work.pools.news import Done, Failed, News
from service.work.pools.tasks import Parcel, Shared, Task
from tinytl.engine.gpu import repeatable_gpu

_latest: list[tuple[str, Shared]] = []
"""What this process has last opened, under the id of its object: one at most."""


def run_on_node(
    task: Task,
    references: list[Any],
    *,
    num_threads: int,
    gpus_per_task: float,
    tinyfit_version: str,
) -> Iterator[News]:
    """Run a task, on the GPU of which Ray has given it a share, else on processors.

    references: the one to what tasks share, in a list so that Ray leaves it.
    """
    if tinyfit_version != own_version():
        yield _refusal(
            f"has tinyfit {own_version()}, but the worker has {tinyfit_version}: install the "
            f"same version on all nodes"
        )
        return
    device = torch.device("cpu")
    if gpus_per_task > 0:
        if not torch.cuda.is_available():
            yield _refusal(
                f"gave a task {gpus_per_task:g} GPUs, but its torch {torch.__version__} finds no "
                f"CUDA: install a torch with CUDA there, or set TINYFIT_RAY_GPUS_PER_TASK=0"
            )
            return
        device = repeatable_gpu()
    news: SimpleQueue[News] = SimpleQueue()
    threading.Thread(
        target=attend,
        args=(task, lambda: _open(references[0], device), news.put),
        kwargs={"num_threads": num_threads},
        daemon=True,
    ).start()
    while True:
        latest = news.get()
        if isinstance(latest, Failed) and isinstance(latest.error, torch.OutOfMemoryError):
            latest = _refusal(
                f"has too little GPU memory for tasks that take {gpus_per_task:g} GPUs each: set "
                f"a larger TINYFIT_RAY_GPUS_PER_TASK, or 0 ({latest.error})"
            )
        yield latest
        if isinstance(latest, Done | Failed):
            return


def _refusal(reason: str) -> Failed:
    """Why this node can't run a task."""
    return Failed(ServiceError(f"the Ray node {ray.util.get_node_ip_address()} {reason}"))


def own_version() -> str:
    return version("tinyfit")


def _open(reference: Any, device: torch.device) -> Shared:
    """As the process that ran an earlier task has it, or from this machine's object store."""
    name = reference.hex()
    if not _latest or _latest[0][0] != name:
        parcel: Parcel = ray.get(reference)
        _latest[:] = [(name, parcel.open(device))]
    return _latest[0][1]
