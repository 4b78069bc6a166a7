"""What the stages of a job see of where their tasks run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from service.work.pools.news import News
from service.work.pools.tasks import Shared, Task
from tinytl.errors import CancelledError

OnNews = Callable[[int, News], None]
"""Is told the number of a task, and what is new about it: Done at last."""


class Pool(Protocol):
    """Runs tasks. Only what it tells ever matters: it writes nothing anywhere."""

    def run(self, tasks: Sequence[Task], on_news: OnNews) -> None:
        """Run all of them, in any order, side by side where it can; on_news is told by the
        calling thread.

        Raises what a task raises, CancelledError where the job is asked to stop, TaskLostError
        where a task's process dies too often, and ClusterLostError where its cluster is gone.
        Then none of the tasks goes on.
        """
        ...


class OwnProcess:
    """Runs tasks one after another in this process."""

    def __init__(self, shared: Shared, should_stop: Callable[[], bool]) -> None:
        self._shared, self._should_stop = shared, should_stop

    def run(self, tasks: Sequence[Task], on_news: OnNews) -> None:
        for number, task in enumerate(tasks):
            if self._should_stop():
                raise CancelledError("the job was asked to stop")
            task.run(self._shared, partial(on_news, number), self._should_stop)
