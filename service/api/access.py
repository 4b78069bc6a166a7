"""Who may ask, and how often: API keys, other sites, rate limits, before anything else is done."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
import re
from http import HTTPStatus
from time import monotonic, time

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.http.problems import problem_of
from service.errors import RateLimitError, UnauthorizedError
from service.record.db.database import Database, is_outage
from service.record.keys import list_keys
from service.settings import Settings

KEYS_KEPT_SECONDS = 2.0
"""How long what is known of the keys is believed: a revoked one works no longer than this, and its
streams of events until they look again."""
_KEYS_AT_MOST_EVERY_SECONDS = 0.5

_OPEN_PATHS = frozenset(("/", "/healthz", "/readyz", "/openapi.json"))
_OPEN_FOLDER = "/static/"
_UNLIMITED_PATHS = frozenset(("/healthz", "/readyz"))
_OWNER = "tinyfit.owner"
_KEYS = "tinyfit.keys"


class Keys:
    """The active keys as of a moment ago, so that no request costs a query.

    Once it has seen a key it asks for one for good: revoking the last does not open the API.
    """

    def __init__(self, database: Database, *, are_needed: bool) -> None:
        self._database = database
        self._are_needed = are_needed
        self._owners: dict[str, str] = {}
        self._read_at = -math.inf
        self._lock = asyncio.Lock()

    async def owner_of(self, authorization: str) -> str:
        """The id of the key in the header; empty where none is needed.

        Raises UnauthorizedError.
        """
        scheme, _, text = authorization.partition(" ")
        sha256 = hashlib.sha256(text.strip().encode()).hexdigest()
        await self._refresh(KEYS_KEPT_SECONDS)
        if not self._are_needed:
            return ""
        owner = self._owners.get(sha256)
        if owner is None:  # made a moment ago, perhaps
            await self._refresh(_KEYS_AT_MOST_EVERY_SECONDS)
            owner = self._owners.get(sha256)
        if owner is None or scheme.lower() != "bearer":
            raise UnauthorizedError(
                "this needs an active API key, sent as `Authorization: Bearer tf_...`; "
                "`tinyfit keys create NAME` makes one"
            )
        return owner

    async def lets_in(self, owner: str) -> bool:
        """Whether who came as this owner a while ago still may."""
        await self._refresh(KEYS_KEPT_SECONDS)
        return not self._are_needed or owner in self._owners.values()

    async def _refresh(self, max_age_seconds: float) -> None:
        async with self._lock:
            if monotonic() - self._read_at < max_age_seconds:
                return
            was_read = self._read_at > -math.inf
            self._read_at = monotonic()  # a database that is out is not asked by each request
            try:
                keys = await run_in_threadpool(list_keys, self._database)
            except SQLAlchemyError as error:
                if was_read and is_outage(error):
                    return  # what was known holds: metrics are read just then
                self._read_at = -math.inf
                raise
            self._owners = {key.sha256: key.id for key in keys if key.revoked_at is None}
            self._are_needed = self._are_needed or bool(self._owners)


class Limits:
    """How often each client may ask. They hold for one web process."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = _limit(RateLimitItemPerSecond, settings.max_requests_per_second)
        self._by_path = {
            "/datasets": _limit(RateLimitItemPerMinute, settings.max_uploads_per_minute),
            "/jobs": _limit(RateLimitItemPerMinute, settings.max_jobs_per_minute),
        }

    async def count(self, client: str, request: Request) -> None:
        """Raises RateLimitError where the client has asked too often."""
        await self._hit(self._requests, "requests", client)
        if request.method == "POST":
            path = request.url.path
            await self._hit(self._by_path.get(path), path, client)

    async def _hit(self, limit: RateLimitItem | None, what: str, client: str) -> None:
        if limit is None or await self._limiter.hit(limit, what, client):
            return
        reset_at, _ = await self._limiter.get_window_stats(limit, what, client)
        name = "requests" if what == "requests" else f"POST {what}"
        raise RateLimitError(
            f"more than {limit.amount} {name} in one {limit.GRANULARITY.name}; try again later",
            retry_after_seconds=max(1, math.ceil(reset_at - time())),
        )


def _limit(kind: type[RateLimitItem], amount: int) -> RateLimitItem | None:
    return kind(amount) if amount else None


class AccessMiddleware:
    """Lets requests through that come with a key, or where none is needed from no other site, and
    not too often."""

    def __init__(self, app: ASGIApp, *, keys: Keys, limits: Limits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            scope[_KEYS] = self._keys
            try:
                scope[_OWNER] = await self._check(request)
            except Exception as error:  # outside of the application's own handlers
                await problem_of(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, request: Request) -> str:
        path = request.url.path
        address = request.client.host if request.client else ""
        if path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            if path not in _UNLIMITED_PATHS:
                await self._limits.count(address, request)
            return ""
        try:
            owner = await self._keys.owner_of(request.headers.get("authorization", ""))
            if not owner:
                _refuse_other_sites(request)
        except (UnauthorizedError, HTTPException):
            await self._limits.count(address, request)
            raise
        await self._limits.count(owner or address, request)
        return owner


def _refuse_other_sites(request: Request) -> None:
    """Raises HTTPException where a browser may ask on behalf of another site's page: one whose
    name leads here by now (DNS rebinding), or one that sends a form here.
    """
    host = request.headers.get("host", "")
    if not _is_own(host, request.app.state.settings.host):
        raise HTTPException(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"without API keys the Host must be localhost, an IP address or TINYFIT_HOST but got "
            f"{host!r}; for another name make a key with `tinyfit keys create NAME`",
        )
    if request.method in ("GET", "HEAD"):  # other sites can't read the answer
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:  # the browser knows best: a proxy may have changed the Host
        is_other = site not in ("same-origin", "none")
    else:
        is_other = origin is not None and origin.partition("://")[2] != host
    if is_other:
        raise HTTPException(
            HTTPStatus.FORBIDDEN,
            f"the pages of other sites change nothing on {host!r} but got {request.method} with "
            f"Origin {origin!r} and Sec-Fetch-Site {site!r}; use the server's own page, or a "
            f"program that sends neither",
        )


def _is_own(host: str, own_host: str) -> bool:
    """Whether no other site can be called so: who owns a name can have it lead here."""
    name = re.sub(r":\d+$", "", host).strip("[]").lower()
    if name in ("localhost", own_host.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def owner_of(request: Request) -> str:
    """The id of the API key that the request came with; empty where none is needed."""
    owner: str = request.scope[_OWNER]
    return owner


async def is_let_in_still(request: Request) -> bool:
    """Whether the API key that the request came with is still active, or still none is needed."""
    keys: Keys = request.scope[_KEYS]
    return await keys.lets_in(owner_of(request))
