"""The database: sessions, clock, schema; what tells an outage from a defect."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    and_,
    bindparam,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.errors import SchemaError
from service.record.db.engines import WRITES, open_engine

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATION_LOCK = 0x74696E79666974  # "tinyfit"
_SQLITE_OUTAGES = frozenset(
    (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
    )
)


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
    """Sessions on one database. `reading` takes no lock; `writing` commits.

    A process that must survive a restart of its database gives patience_seconds: for so long
    connecting is tried again. What a lost connection was in the midst of fails all the same.
    """

    def __init__(self, url: str, *, patience_seconds: float = 0.0) -> None:
        self.engine = open_engine(url, patience_seconds=patience_seconds)
        self._writer = self.engine.execution_options(**{WRITES: True})

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def is_embedded(self) -> bool:
        """Whether it is a file of this installation: SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction that changes the schema, one at a time; it commits."""
        with self._writer.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if self.is_embedded:  # a table may be made anew; has no effect within a transaction
                driver.execute("PRAGMA foreign_keys = OFF")
            try:
                with connection.begin():
                    if not self.is_embedded:
                        connection.execute(text("SET LOCAL lock_timeout = 0"))
                        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                    yield connection
                    if self.is_embedded:
                        _check_foreign_keys(connection)
            finally:
                if self.is_embedded:
                    driver.execute("PRAGMA foreign_keys = ON")

    def upgrade(self) -> None:
        """Bring the schema to the newest revision; safe where several processes do so at once."""
        from alembic import command
        from alembic.util import CommandError

        try:
            with self.migrating() as connection:
                config = alembic_config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise SchemaError(
                f"database {self.shown_url!r} can't be brought up to date ({error}); was it made "
                f"by a later version of tinyfit?"
            ) from error
        except DatabaseError as error:
            raise self._does_not_work(error) from error

    def check_schema(self) -> None:
        """Raise SchemaError where the schema is not of the newest revision. One small query."""
        try:
            with self.reading() as session:
                revision = session.scalar(text("SELECT version_num FROM alembic_version"))
        except DatabaseError as error:
            if is_outage(error):
                raise
            if not _is_missing_table(error):
                raise self._does_not_work(error) from error
            revision = None
        revisions = _revisions()
        if revision is None:
            raise SchemaError(
                f"database {self.shown_url!r} has no tables yet; run tinyfit db upgrade"
            )
        if revision not in revisions:
            raise SchemaError(
                f"database {self.shown_url!r} is of revision {revision!r}, which this version of "
                f"tinyfit does not know; was it made by a later one?"
            )
        if revision != revisions[0]:
            raise SchemaError(
                f"database {self.shown_url!r} is of revision {revision!r}, but this version of "
                f"tinyfit needs {revisions[0]!r}; run tinyfit db upgrade"
            )

    def close(self) -> None:
        self.engine.dispose()

    def _does_not_work(self, error: DatabaseError) -> SchemaError:
        return SchemaError(f"database {self.shown_url!r} does not work: {error.orig}")


def ensure_schema(url: str) -> None:
    """Bring an SQLite database up to date; any other has to be, by `tinyfit db upgrade`."""
    database = Database(url)
    try:
        if database.is_embedded:
            database.upgrade()
        else:
            database.check_schema()
    finally:
        database.close()


def compared(
    compare: Callable[[Any, Any], ColumnElement[bool]],
    *wanted: tuple[InstrumentedAttribute[Any], object],
) -> ColumnElement[bool]:
    """The columns beside the values, which may be columns of another table, compared as rows: by
    the first, then by the second..."""
    columns = tuple_(*[column for column, _ in wanted])
    values = [
        value
        if isinstance(value, ColumnElement | InstrumentedAttribute)
        # as of the column's type
        else bindparam(None, value, type_=column.type)
        for column, value in wanted
    ]
    return compare(columns, tuple_(*values))


def pinned(*wanted: tuple[InstrumentedAttribute[Any], object]) -> ColumnElement[bool]:
    """That columns have these values, put as a range. Where the same columns come first in
    ORDER BY, only an index that begins with them gives that order. With `=`, PostgreSQL may read
    the index of what follows instead, and pass over any number of rows before it finds one."""
    return and_(compared(operator.ge, *wanted), compared(operator.le, *wanted))


def is_outage(error: BaseException) -> bool:
    """Whether the database did not answer, or could not just then; else it is a defect.

    True of lost and refused connections, locks waited for too long, deadlocks, full disks.
    """
    if isinstance(error, NoConnectionError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code & 0xFF in _SQLITE_OUTAGES
    return error.connection_invalidated or isinstance(error, OperationalError)


def _is_missing_table(error: DatabaseError) -> bool:
    """Whether a statement named a table that does not exist."""
    undefined_table = "42P01"
    if isinstance(error.orig, sqlite3.Error):
        return "no such table" in str(error.orig)
    return getattr(error.orig, "sqlstate", None) == undefined_table


def alembic_config() -> Config:
    """Alembic's configuration, with the migrations that this package carries."""
    from alembic.config import Config

    import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _revisions() -> tuple[str, ...]:
    """All revisions that this version knows, newest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config())
    return tuple(script.revision for script in scripts.walk_revisions())


def _check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise SchemaError(f"the migration would leave rows without the rows they name: {broken}")
