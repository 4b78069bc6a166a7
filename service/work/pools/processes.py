"""Tasks in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self

import torch

from service.errors import TaskLostError
from service.work.pools.attending import attend
from service.work.pools.news import Done, Failed
from service.work.pools.pool import OnNews
from service.work.pools.tasks import Parcel, Shared, Task
from service.work.processes.lifeline import StopCheck
from tinytl.errors import CancelledError

_LOOK_EVERY_SECONDS = 0.2
_SPAWN = multiprocessing.get_context("spawn")


class ProcessPool:
    """At most so many processes, as there are tasks for them; leave it to end them.

    They belong to this process's group, and end with this process however that ends.
    """

    def __init__(self, num_processes: int, parcel: Parcel, should_stop: StopCheck) -> None:
        self._num_processes, self._parcel, self._should_stop = num_processes, parcel, should_stop
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._connections: list[Connection] = []
        self._idle: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        for connection in self._connections:
            connection.close()

    def run(self, tasks: Sequence[Task], on_news: OnNews) -> None:
        for _ in range(len(self._processes), min(self._num_processes, len(tasks))):
            self._start()
        waiting = deque(enumerate(tasks))
        busy: dict[Connection, int] = {}
        while waiting or busy:
            while waiting and self._idle:
                connection = self._idle.pop()
                busy[connection], task = waiting.popleft()
                with _deaths_told():
                    connection.send(task)
            ready = wait(busy, timeout=_LOOK_EVERY_SECONDS)
            if self._should_stop.quietly():
                raise CancelledError("the job was asked to stop")
            for speaker in ready:
                assert isinstance(speaker, Connection)
                with _deaths_told():
                    news = speaker.recv()
                self._should_stop()  # a beat
                if isinstance(news, Failed):
                    raise news.error
                number = busy[speaker]
                if isinstance(news, Done):
                    self._idle.append(speaker)
                    del busy[speaker]
                on_news(number, news)

    def _start(self) -> None:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(
            target=_work, args=(theirs, self._parcel, torch.get_num_threads()), daemon=True
        )
        process.start()
        theirs.close()  # so that its end is news
        self._processes.append(process)
        self._connections.append(ours)
        self._idle.append(ours)


@contextmanager
def _deaths_told() -> Iterator[None]:
    """Of the process at the other end."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise TaskLostError("a process of the pool died") from error


def _work(connection: Connection, parcel: Parcel, num_threads: int) -> None:
    """What a process of the pool does: task after task, until it is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    shared: list[Shared] = []

    def open_shared() -> Shared:
        if not shared:
            shared.append(parcel.open())
        return shared[0]

    with suppress(EOFError):  # the parent has ended, or is about to end this process
        while True:
            attend(connection.recv(), open_shared, connection.send, num_threads=num_threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
