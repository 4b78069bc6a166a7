"""A job's process, as its worker sees it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from service.work.processes.lifeline import Listener
from tinytl.environment import torch_environment


class ChildProcess:
    """A process in its own group that ends with this one, however this one ends."""

    def __init__(self, command: Sequence[str], order: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=torch_environment(keeps_memory=True),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._beats = Listener(self._stdout)
        with suppress(BrokenPipeError):
            self._stdin.write(order.encode())
            self._stdin.flush()

    def wait(self, seconds: float) -> int | None:
        """The code it ended with; None while it runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def silent_seconds(self) -> float:
        """How long it has not told that it got on."""
        return self._beats.silent_seconds()

    def stop(self, grace_seconds: float) -> None:
        """Ask the group to stop and give it time to."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self.wait(grace_seconds)

    def kill(self) -> None:
        """Whatever is left of the group ends now."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
