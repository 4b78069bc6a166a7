"""`tinyfit serve`: the web process, with a worker process beside it."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.api.app import create_app
from service.api.server import Server, needs_key
from service.errors import ServiceError
from service.record.db.database import ensure_schema
from service.record.files.blobs import check_artifact_url
from service.settings import Settings

logger = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS = 1.0
_SLOWEST_RESTART_SECONDS = 30.0


class AddressError(ServiceError):
    """The server can't listen where it was told to."""


def serve(settings: Settings, *, with_worker: bool) -> None:
    """Serve until a signal ends it."""
    check_artifact_url(settings)
    ensure_schema(settings.resolved_database_url)
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    app = create_app(settings, needs_key=needs_key(listener, settings.resolved_database_url))
    server = Server(app)
    worker = WorkerProcess(settings) if with_worker else None
    with _signals_end_the_server():
        if worker is not None:
            worker.start()
        try:
            logger.info("tinyfit serves http://%s:%d", shown, port)
            server.run(sockets=[listener])
        finally:
            if worker is not None:
                worker.stop()
            listener.close()


class WorkerProcess:
    """A worker in a process of its own, started again should it die; it ends with this one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name="worker", daemon=True)

    def start(self) -> None:
        self._process = self._spawn()
        self._thread.start()

    def stop(self) -> None:
        """Let the worker put its job back and wait until it has ended."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(self._settings.stop_grace_seconds + 10)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _spawn(self) -> subprocess.Popen[bytes]:
        data_dir = str(self._settings.data_dir)
        command = [sys.executable, "-m", "service.cli", "worker", "--data-dir", data_dir]
        return subprocess.Popen(
            [*command, "--with-parent"], stdin=subprocess.PIPE, start_new_session=True
        )

    def _keep_alive(self) -> None:
        pause = _FIRST_RESTART_SECONDS
        while self._process is not None:
            started = time.monotonic()
            code = self._process.wait()
            if self._process.stdin is not None:
                with suppress(OSError):
                    self._process.stdin.close()
            if self._stopping.is_set():
                return
            logger.error("the worker ended with code %d; it starts again", code)
            if time.monotonic() - started > _SLOWEST_RESTART_SECONDS:
                pause = _FIRST_RESTART_SECONDS
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, _SLOWEST_RESTART_SECONDS)
            self._process = self._spawn()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as error:
        raise AddressError(
            f"can't listen on {settings.host}:{settings.port} ({error.strerror}); give another "
            f"--host or --port, for example --port 0 for any free one"
        ) from error
    # asyncio does so only for sockets it made: else a body waits 40 ms for its head's receipt
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _signals_end_the_server() -> Iterator[None]:
    """uvicorn stops on a signal and then raises it again; by then there is only tidying left."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
