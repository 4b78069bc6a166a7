"""How another process runs a task for a job's: all that happens becomes news."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable

import torch

from service.errors import ServiceError
from service.work.pools.news import Alive, Failed, News, Started, Step, Tell
from service.work.pools.tasks import Shared, Task

_EVERY_SECONDS = 0.25
"""Steps are told so often at most."""


def attend(task: Task, open_shared: Callable[[], Shared], tell: Tell, *, num_threads: int) -> None:
    """Run a task with so many threads, as the job's own process would."""
    tell(Started())
    last = float("-inf")

    def is_due() -> bool:
        nonlocal last
        time_now = time.monotonic()
        if time_now - last < _EVERY_SECONDS:
            return False
        last = time_now
        return True

    def tell_some(news: News) -> None:
        if not isinstance(news, Step) or news.done == news.total or is_due():
            tell(news)

    def alive() -> bool:
        """In the place of should_stop: whoever wants a task to stop ends its process."""
        if is_due():
            tell(Alive())
        return False

    try:
        torch.set_num_threads(num_threads)
        task.run(open_shared(), tell_some, alive)
    except Exception as error:
        tell(Failed(_portable(error)))


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same, with where it was raised; it can be pickled."""
    where = traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # its class takes other arguments than it passes on
        error = ServiceError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error
