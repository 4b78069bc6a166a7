"""The service under test: an API process and worker processes, started again when they die."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.faults.cluster import free_port

_TAG = "FAULTS_RUN"
_RESTART_SECONDS = 1.0
"""At most so long a killed process stays away."""
_PATIENCE_SECONDS = 120.0


class RefusedError(Exception):
    """The API understood the request and refused it, by the status that this holds."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker runs: what its command begins with, and settings of its own."""

    prefix: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


class Service:
    """`tinyfit serve --no-worker` and workers; every process of theirs carries a tag."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        *,
        data_dir: Path,
        places: Sequence[Place],
        rng: random.Random,
    ) -> None:
        self.data_dir = data_dir
        self.log = directory / "log"
        self._port = free_port()
        self._rng = rng
        self._tag = uuid.uuid4().hex
        self._environment = {
            **os.environ,
            **settings,
            "OMP_NUM_THREADS": "1",
            _TAG: self._tag,
        }
        self._commands = {
            "api": ("serve", "--no-worker", "--port", str(self._port)),
            **{f"worker {number}": ("worker",) for number in range(len(places))},
        }
        self._places = {f"worker {number}": place for number, place in enumerate(places)}
        self.workers = [name for name in self._commands if name != "api"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._due = dict.fromkeys(self._commands, 0.0)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=30)
        self.retries = 0
        self.while_waiting: Callable[[], None] = self.keep_up
        """Called again and again while an answer is waited for."""

    def keep_up(self) -> None:
        """Start what is down, now or in a moment."""
        for name, command in self._commands.items():
            process = self._processes.get(name)
            if process is not None and process.poll() is not None:
                del self._processes[name]
                self._due[name] = time.monotonic() + self._rng.uniform(0, _RESTART_SECONDS)
            if name not in self._processes and time.monotonic() >= self._due[name]:
                place = self._places.get(name, Place())
                self._processes[name] = self._start(*command, place=place)

    def upgrade(self) -> None:
        if self._start("db", "upgrade").wait() != 0:
            raise RuntimeError(f"the database can't be upgraded: {self.log.read_text()}")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """Whether there was such a process to send the signal to."""
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            return False
        process.send_signal(number)
        return True

    def kill_child(self) -> bool:
        """Kill the process of a job, if there is one."""
        children = [
            child
            for name in self.workers
            if name in self._processes
            for child in _children(self._processes[name].pid)
        ]
        if not children:
            return False
        try:
            os.kill(self._rng.choice(children), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> list[int]:
        """End all in good order, as a supervisor would; the codes that were not 0."""
        for process in self._processes.values():
            process.terminate()
        codes = [process.wait(60) for process in self._processes.values()]
        self._processes.clear()
        return [code for code in codes if code != 0]

    def sweep(self) -> None:
        """A worker's start, which tidies up; it finds no job to do."""
        worker = self._start("worker")
        mark = self.log.stat().st_size
        wait_until(lambda: b"waits for jobs" in self.log.read_bytes()[mark:])
        time.sleep(2.0)
        worker.terminate()
        worker.wait(60)

    def orphans(self) -> list[int]:
        """Processes of this run that are still there."""
        tag = f"{_TAG}={self._tag}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if tag in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
        return found

    def kill_all(self) -> None:
        for pid in self.orphans():
            with_suppressed_kill(pid)
        for process in self._processes.values():
            process.wait()
        self._client.close()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON; tried again while the API or its database is away. Raises
        RefusedError."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                response = self._client.request(method, path, **options)
                if 400 <= response.status_code < 500:
                    raise RefusedError(response.status_code)
                if response.status_code < 500:
                    return response.json() if response.content else None
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} {path} got no answer for {_PATIENCE_SECONDS:g} s")
            self.retries += 1
            self.while_waiting()
            time.sleep(0.2)

    def _start(self, *arguments: str, place: Place = Place()) -> subprocess.Popen[bytes]:
        command = [*place.prefix, sys.executable, "-m", "service.cli", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **place.settings},
            )


def two_classes(images_per_class: int = 16) -> bytes:
    """A zip of small images, dark and light ones."""
    rng = np.random.default_rng(0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, offset in (("dark", 0), ("light", 128)):
            for number in range(images_per_class):
                pixels = rng.integers(128, size=(32, 32, 3), dtype=np.uint8) + np.uint8(offset)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                archive.writestr(f"{name}/{number}.png", stream.getvalue())
    return packed.getvalue()


def wait_until(condition: Callable[[], object], seconds: float = _PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited too long")
        time.sleep(0.05)


def with_suppressed_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
