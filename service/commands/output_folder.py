"""The folder in which a command leaves its result, and what it goes on from once stopped."""

from __future__ import annotations

import fcntl
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import ConflictError, InputError

STATE = ".tinyfit"
"""What is under way lies here, in the output folder."""


def check_apart(data: Path, output: Path) -> None:
    """An output among the images would be read as images by the next run."""
    folder, target = data.resolve(), output.resolve()
    if data.is_dir() and (target == folder or folder in target.parents):
        raise InputError(
            f"the output folder {str(output)!r} is in the data folder {str(data)!r}; give an "
            f"--output outside of it"
        )


@contextmanager
def removed_unless_used(output: Path) -> Iterator[None]:
    """A folder that this run made goes again if the run was refused before there was a job."""
    is_new = not output.exists()
    try:
        (output / STATE).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"can't write to {str(output)!r}: {error.strerror}") from error
    try:
        yield
    except InputError:
        if is_new:
            shutil.rmtree(output)
        raise


@contextmanager
def locked(output: Path, command: str) -> Iterator[None]:
    """Only one command works in a folder; the lock ends with the process."""
    with (output / STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConflictError(
                f"another {command} is at work in {str(output)!r}; wait for it, or give another "
                f"--output"
            ) from error
        yield


@contextmanager
def signals_set(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM let the job stop in good order."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda number, frame: stop.set())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
