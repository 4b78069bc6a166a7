"""What the page's tests share: a server over a database that tests fill, Chromium, and a page
that is watched: nothing leaves the server, nothing goes wrong unnoticed."""

from __future__ import annotations

import io
import re
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from service.api.app import create_app
from service.record.db.database import Database
from service.settings import Settings
from tests.dashboard.records import Records

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_TIMEOUT_MS = 15_000
_HURRY = """{
    const wait = window.setTimeout.bind(window);
    window.setTimeout = (task, ms, ...rest) => wait(task, ms / 5, ...rest);
}"""
"""The page waits a fifth as long between its requests, so that tests wait less."""

expect.set_options(timeout=_TIMEOUT_MS)


@dataclass
class RunningServer:
    """A web process' worth of server in a thread; `stop` and `start` keep its address."""

    settings: Settings
    port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        app = create_app(self.settings)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._server = None


def wait_until(page: Page, function: str, arg: object = None) -> None:
    """Waits for `function` to return true in `page`.

    `page.wait_for_function` evaluates its text within the page, again in each frame, which the
    page's content security policy forbids: only a condition that holds at once would pass.

    Raises:
        TimeoutError: it did not within the time that `expect` waits, too.
    """
    deadline = time.monotonic() + _TIMEOUT_MS / 1000
    while not page.evaluate(function, arg):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never true on {page.url}: {function}")
        page.wait_for_timeout(20)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables, to copy: migrations take their time."""
    path = tmp_path_factory.mktemp("empty") / "tinyfit.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


@pytest.fixture
def database(settings: Settings, empty_database: Path) -> Iterator[Database]:
    settings.data_dir.mkdir()
    shutil.copy(empty_database, settings.data_dir)
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def server(settings: Settings, database: Database) -> Iterator[RunningServer]:
    server = RunningServer(settings)
    server.start()
    yield server
    if server._server is not None:
        server.stop()


@pytest.fixture
def records(settings: Settings, database: Database) -> Records:
    records = Records(settings=settings, database=database)
    records.worker_is_up()
    return records


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Not for the session: while it is open, no other test can run an event loop of its own."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
    yield browser
    browser.close()


@dataclass
class Watch:
    """What the page asked for and complained of. `expected`: complaints that a test is about."""

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def check(self, url: str) -> None:
        assert self.hosts <= {urlsplit(url).netloc, ""}
        unexpected = [
            complaint
            for complaint in self.complaints
            if not any(re.search(pattern, complaint) for pattern in self.expected)
        ]
        assert unexpected == []

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def open_context(
    browser: Browser, server: RunningServer, watch: Watch
) -> Iterator[Callable[..., BrowserContext]]:
    """A browser's profile of its own, with Playwright's options; its pages are watched."""
    contexts = []

    def open_context(**options: Any) -> BrowserContext:
        context = browser.new_context(
            base_url=server.url, **({"viewport": {"width": 1280, "height": 900}} | options)
        )
        context.set_default_timeout(_TIMEOUT_MS)
        context.add_init_script(_HURRY)
        context.on("page", watch.on)
        contexts.append(context)
        return context

    yield open_context
    for context in contexts:
        context.close()
    watch.check(server.url)


@pytest.fixture
def page(open_context: Callable[..., BrowserContext]) -> Page:
    return open_context().new_page()


def _image(colour: tuple[int, int, int], number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 24), tuple(min(255, part + number) for part in colour)).save(
        stream, "PNG"
    )
    return stream.getvalue()


@pytest.fixture
def make_zip(tmp_path: Path) -> Callable[..., Path]:
    """A zip of two classes that differ in colour, or of the given files."""

    def make(
        name: str = "colours", *, per_class: int = 12, files: Mapping[str, bytes] | None = None
    ) -> Path:
        path = tmp_path / f"{name}.zip"
        if files is None:
            colours = {"red": (190, 30, 30), "blue": (30, 30, 190)}
            files = {
                f"{label}/{number}.png": _image(colour, number)
                for label, colour in colours.items()
                for number in range(per_class)
            }
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
        return path

    return make
