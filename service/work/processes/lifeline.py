"""How processes of the service belong together.

One that must not outlive its parent holds a pipe from it: the pipe's end is the news. One that
must not stand still writes to a pipe to its parent: a beat whenever it got on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

_BEAT_EVERY_SECONDS = 0.2
_PIPE_BYTES = 1 << 16


def on_parent_end(pipe: IO[str] | IO[bytes], action: Callable[[], None]) -> None:
    """Call action from a thread of its own once the other end of the pipe is closed.

    However the parent ends, kill -9 included, the kernel closes its end.
    """

    def watch() -> None:
        while pipe.read(1):
            pass
        action()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def kill_own_group() -> None:
    """End this process and all it started; it leads its own process group."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def stop_self() -> None:
    """Ask this process to end in good order."""
    os.kill(os.getpid(), signal.SIGTERM)


class Beats:
    """How a process tells its parent that it gets on, through its standard output.

    What is printed from now on goes to standard error. A parent that does not read keeps nobody
    waiting: then beats are lost, and nothing else.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        sys.stdout.flush()
        self._pipe = os.dup(1)
        os.dup2(2, 1)
        os.set_blocking(self._pipe, False)
        self._clock = clock
        self._last = float("-inf")

    def beat(self) -> None:
        """Cheap enough for the innermost loop."""
        time_now = self._clock()
        if time_now - self._last >= _BEAT_EVERY_SECONDS:
            self._last = time_now
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._pipe, b".")


class StopCheck:
    """Whether a job's process is to stop. Whoever gets on asks: that is a beat, too."""

    def __init__(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        self._stop, self._beat = stop, beat

    def __call__(self) -> bool:
        self._beat()
        return self.quietly()

    def quietly(self) -> bool:
        """Without a beat, for whoever only waits for others."""
        return self._stop.is_set()


class Listener:
    """The parent's end of a pipe of beats."""

    def __init__(self, pipe: IO[bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pipe = pipe
        os.set_blocking(pipe.fileno(), False)
        self._clock = clock
        self._heard = clock()

    def silent_seconds(self) -> float:
        """How long ago the last beat was heard; at first, how long this has been listening."""
        with suppress(BlockingIOError):
            while os.read(self._pipe.fileno(), _PIPE_BYTES):
                self._heard = self._clock()
        return self._clock() - self._heard
