"""How processes of the service belong together.

One that must not outlive its parent holds a pipe from it: the pipe's end is the news.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import IO


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


def torch_environment() -> dict[str, str]:
    """The environment for a process that runs torch.

    Its threads that wait must not take the processor from those that work: where another process
    wants the same cores, spinning makes small steps many times slower.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
