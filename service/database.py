"""The database: engine, sessions, clock and schema upgrades."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Float, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.errors import InputError, SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_TIMEOUT_SECONDS = 30.0
_WRITES = "tinyfit_writes"


class now(FunctionElement[float]):  # reads as SQL does
    """Seconds since the epoch by the database's clock, the only clock that jobs go by."""

    name = "now"
    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_on_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_on_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


class Database:
    """Sessions on one database. `reading` never waits for a writer; `writing` commits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _create_engine(url)
        self._writer = self.engine.execution_options(**{_WRITES: True})

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def upgrade(self) -> None:
        """Bring the schema to the newest revision; safe where several processes do so at once."""
        from alembic import command
        from alembic.util import CommandError

        shown = self.engine.url.render_as_string()
        try:
            with self._writer.begin() as connection:
                config = alembic_config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise SchemaError(
                f"database {shown!r} can't be brought up to date ({error}); was it made by a "
                f"later version of tinyfit?"
            ) from error
        except DatabaseError as error:
            raise SchemaError(f"database {shown!r} does not work: {error.orig}") from error

    def close(self) -> None:
        self.engine.dispose()


def upgrade_embedded(url: str) -> None:
    """Bring an SQLite database up to date. Others are upgraded by `tinyfit db upgrade`."""
    database = Database(url)
    if database.engine.dialect.name == "sqlite":
        database.upgrade()
    database.close()


def alembic_config() -> Config:
    """Alembic's configuration, with the migrations that this package carries."""
    from alembic.config import Config

    import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def _create_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(
            f"database_url {url!r} is not a database URL; use for example sqlite:///tinyfit.db"
        ) from error
    if parsed.get_backend_name() != "sqlite":
        try:
            return create_engine(parsed, pool_pre_ping=True)
        except (ImportError, NoSuchModuleError) as error:
            shown = parsed.render_as_string(hide_password=True)
            raise InputError(
                f"database_url {shown!r} needs a driver that is not installed ({error})"
            ) from error
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_on_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    """WAL lets readers go on while one writes; the driver's own BEGIN is turned off."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_on_sqlite(connection: Connection) -> None:
    """Writers queue at BEGIN, where the busy timeout holds, not in the middle of their work."""
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
