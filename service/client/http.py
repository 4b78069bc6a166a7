"""Requests to a server: errors made readable, and tried again where they may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from service.errors import InputError, ServiceError

TIMEOUT = httpx.Timeout(30.0, connect=10.0)

_TRANSIENT = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_EXCERPT = 200

T = TypeVar("T")


class ClientError(ServiceError):
    """Root of what goes wrong between a client and its server."""

    is_transient = False
    """Whether the same request may work a little later."""
    is_undone = False
    """Whether the server has certainly not acted on the request."""
    retry_after: float | None = None
    """Seconds after which the server wants to be asked again."""


class ConnectionFailedError(ClientError):
    """The server can't be reached, or broke off in the middle."""

    is_transient = True

    def __init__(self, message: str, *, is_undone: bool) -> None:
        super().__init__(message)
        self.is_undone = is_undone


class AnswerError(ClientError):
    """The answer is none that a server of this version gives."""


class ProblemError(ClientError):
    """The server answered with a problem document (RFC 9457), or with an error of its own."""

    _MEMBERS: ClassVar = ("type", "title", "status", "detail", "instance", "errors")

    def __init__(self, response: httpx.Response) -> None:
        problem = _problem_of(response)
        self.status = response.status_code
        self.title = str(problem.get("title", _phrase(response)))
        self.detail = str(problem.get("detail", ""))
        self.errors: list[dict[str, Any]] = problem.get("errors") or []
        """For a 422: where, what and what was got."""
        self.members = {
            name: value for name, value in problem.items() if name not in self._MEMBERS
        }
        """What else the document says, such as smallest_feasible_bytes."""
        self.retry_after = _retry_after(response.headers.get("Retry-After"))
        self.is_transient = self.status in _TRANSIENT
        self.is_undone = self.status == HTTPStatus.TOO_MANY_REQUESTS
        super().__init__(self.detail or f"the server answered {self.status} {self.title}")


class Patience:
    """How long to go on trying, from the first failure on: pauses grow, and a server that says
    when is believed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Something worked: begin anew."""
        self._deadline: float | None = None
        self._pause = _FIRST_PAUSE_SECONDS

    def wait(self, error: ClientError) -> None:
        """Pause before the next try; raises error where there is no time for one."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._seconds
        pause = self._pause * random.uniform(0.5, 1.5)
        if error.retry_after is not None:
            pause = max(pause, error.retry_after)
        if not error.is_transient or time.monotonic() + pause > self._deadline:
            raise error
        time.sleep(pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)


class Connection:
    """A server at an address. Paths begin with a slash and are below the address's own."""

    def __init__(self, url: str, api_key: str | None, patience_seconds: float) -> None:
        self.url = _checked_url(url)
        self.patience_seconds = patience_seconds
        headers = {"User-Agent": "tinyfit"}
        if api_key:
            headers["Authorization"] = f"Bearer {_checked_key(api_key)}"
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, *, repeatable: bool, **content: Any) -> httpx.Response:
        """Send a request and return its answer, a good one.

        Tries again after what may pass: always where the server has not acted on the request,
        and otherwise where doing it twice is as good as once (repeatable).
        """
        patience = Patience(self.patience_seconds)
        while True:
            try:
                with self._readable_errors():
                    return _checked(self._http.request(method, path, **content))
            except ClientError as error:
                if not (repeatable or error.is_undone):
                    raise
                patience.wait(error)

    def get(self, path: str, **params: str | int | None) -> httpx.Response:
        given = {name: value for name, value in params.items() if value is not None}
        return self.send("GET", path, repeatable=True, params=given)

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str], *, timeout: float, **params: str | int
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes: one try; timeout is the longest silence."""
        limits = httpx.Timeout(timeout, connect=TIMEOUT.connect)
        with (
            self._readable_errors(),
            self._http.stream(
                "GET", path, headers=headers, timeout=limits, params=params
            ) as response,
        ):
            if response.is_error:
                response.read()
            yield _checked(response)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if never_sent:
                message = (
                    f"can't reach {self.url} ({_reason(error)}); is `tinyfit serve` running "
                    f"there? TINYFIT_URL and --url say where it is"
                )
            else:
                message = f"lost the connection to {self.url} ({_reason(error)})"
            raise ConnectionFailedError(message, is_undone=never_sent) from error
        except (httpx.DecodingError, httpx.StreamError) as error:
            raise AnswerError(f"{self.url} sent what can't be read ({_reason(error)})") from error


def parse(kind: type[T] | TypeAdapter[T], response: httpx.Response) -> T:
    """The answer as kind. Raises AnswerError."""
    return parse_json(kind, response.content, str(response.request.url))


def parse_json(kind: type[T] | TypeAdapter[T], content: bytes | str, url: str) -> T:
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise AnswerError(
            f"the answer of {url} is not one of a tinyfit server of this version "
            f"({where}: {first['msg']})"
        ) from error


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    if response.is_error:
        raise ProblemError(response)
    raise AnswerError(
        f"{response.request.url} answered {response.status_code} {_phrase(response)}; is that "
        f"the address of a tinyfit server?"
    )


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(
            f"not the address of a server: {url!r}; write for example http://127.0.0.1:8000"
        )
    return url.rstrip("/")


def _checked_key(api_key: str) -> str:
    if not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise InputError(
            "the API key has characters that no key has; `tinyfit keys create` makes one"
        )
    return api_key


def _problem_of(response: httpx.Response) -> dict[str, Any]:
    """The problem document; empty where something else answered, such as a proxy."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _phrase(response: httpx.Response) -> str:
    return response.reason_phrase or "without a reason"


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _reason(error: Exception) -> str:
    text = str(error).removeprefix("[Errno ")
    return (text.partition("] ")[2] or str(error) or type(error).__name__)[:_EXCERPT]
