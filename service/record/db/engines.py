"""Engines over SQLite and PostgreSQL, from a database URL. No message shows a password."""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from service.errors import InputError

LOCK_TIMEOUT_SECONDS = 30.0
"""How long a writer waits for others, and how long a transaction may keep them waiting."""

WRITES = "tinyfit_writes"
"""Execution option of connections that write from the start of a transaction on."""

_POOL_SIZE = 10
_MAX_OVERFLOW = 20
_POOL_TIMEOUT_SECONDS = 10.0
_CONNECT_TIMEOUT_SECONDS = 5
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
_WAL_PAUSE_SECONDS = 0.01


def open_engine(url: str, *, patience_seconds: float) -> Engine:
    """An engine for the URL; connecting is tried again for patience_seconds. Raises InputError."""
    parsed = _parse(url)
    engine = _open_sqlite(parsed) if parsed.drivername == "sqlite" else _open_postgresql(parsed)
    if patience_seconds > 0:
        _try_again(engine, patience_seconds)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):
            raise ValueError("a password ends at its first @")
    except (ArgumentError, ValueError) as error:
        shown = re.sub(r"(?<=password=)[^&]*", "***", re.sub(r":.*@", ":***@", url))
        raise InputError(
            f"database_url {shown!r} is not a database URL; use for example sqlite:///tinyfit.db "
            f"or postgresql://user:password@host/database, with %40 for an @ in the password"
        ) from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if "password" in parsed.query:  # where SQLAlchemy would not hide it
        password = str(parsed.query["password"])
        parsed = parsed.difference_update_query(["password"]).set(password=password)
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise InputError(
            f"database_url {parsed.render_as_string()!r} is neither SQLite "
            f"(sqlite:///tinyfit.db) nor PostgreSQL (postgresql://user:password@host/database)"
        )
    return parsed


def _open_postgresql(url: URL) -> Engine:
    return create_engine(
        url,
        connect_args=_postgresql_arguments(url),
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=_POOL_SIZE,
        max_overflow=_MAX_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_SECONDS,
    )


def _postgresql_arguments(url: URL) -> dict[str, Any]:
    """What libpq is told, where the URL says nothing else. A transaction whose process stands
    still, or whose host is gone, gives up its locks. A server that can't be reached is given up
    after 25 s, whether nothing is heard of it or what was sent is not received, for which Linux
    would else wait a quarter of an hour. Plans are made for a database in memory."""
    milliseconds = round(1000 * LOCK_TIMEOUT_SECONDS)
    arguments = {
        "application_name": "tinyfit",
        "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
        "options": f"-c lock_timeout={milliseconds} "
        f"-c idle_in_transaction_session_timeout={milliseconds} -c random_page_cost=1.1",
    }
    return {name: value for name, value in arguments.items() if name not in url.query}


def _open_sqlite(url: URL) -> Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    timeout = {} if "timeout" in url.query else {"timeout": LOCK_TIMEOUT_SECONDS}
    engine = create_engine(url, connect_args=timeout)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_on_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    """WAL lets readers go on while one writes; the driver's own BEGIN is turned off."""
    connection.isolation_level = None
    _switch_to_wal(connection)
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """The first switch of a file wants it alone, and SQLite's busy timeout does not hold there."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(_WAL_PAUSE_SECONDS)


def _begin_on_sqlite(connection: Connection) -> None:
    """Writers queue at BEGIN, where the busy timeout holds, not in the middle of their work."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _try_again(engine: Engine, patience_seconds: float) -> None:
    failure: Any = engine.dialect.loaded_dbapi.OperationalError

    def connect(
        dialect: Dialect,
        record: ConnectionPoolEntry,
        arguments: list[Any],
        options: dict[str, Any],
    ) -> Any:
        deadline = time.monotonic() + patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except failure:
                seconds_left = deadline - time.monotonic()
                if seconds_left <= 0:
                    raise
            time.sleep(min(pause, seconds_left))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    event.listen(engine, "do_connect", connect)
