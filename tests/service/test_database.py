import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

from service.database import Database, now
from service.errors import InputError, SchemaError
from service.models import Base, Dataset, Job
from service.settings import Settings


def make_dataset(dataset_id: str = "d1") -> Dataset:
    return Dataset(
        id=dataset_id,
        name="shapes",
        classes=["circle", "square"],
        counts={"train": {"circle": 5, "square": 5}},
        num_images=10,
        num_bytes=1000,
        created_at=now(),
    )


def test_migrations_make_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_upgrade_twice_and_at_once(settings: Settings) -> None:
    databases = [Database(settings.resolved_database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.upgrade, databases))
    databases[0].upgrade()
    assert {"jobs", "alembic_version"} <= set(inspect(databases[0].engine).get_table_names())
    for database in databases:
        database.close()


def test_sqlite_waits_logs_ahead_and_checks_foreign_keys(database: Database) -> None:
    with database.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) == 30_000

    def write_a_job_without_dataset() -> None:
        with database.writing() as session:
            session.add(
                Job(
                    id="j1",
                    name="job",
                    dataset_id="nowhere",
                    memory_limit_bytes=1,
                    supernet="s",
                    method="head",
                    settings={},
                    created_at=now(),
                )
            )

    with pytest.raises(IntegrityError):
        write_a_job_without_dataset()


def test_the_clock_is_the_epoch(database: Database) -> None:
    with database.reading() as session:
        assert session.scalar(select(now())) == pytest.approx(time.time(), abs=2.0)
        assert session.scalar(select(now() + 60.0)) == pytest.approx(time.time() + 60, abs=2.0)


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    def write_half() -> None:
        with database.writing() as session:
            session.add(make_dataset())
            session.flush()
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    with database.reading() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_readers_go_on_while_one_writes_and_writers_queue(database: Database) -> None:
    writing, done = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with database.writing() as session:
            session.add(make_dataset("slow"))
            session.flush()
            writing.set()
            done.wait(5)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    assert writing.wait(5)
    with database.reading() as session:
        assert session.scalars(select(Dataset)).all() == []
    threading.Timer(0.2, done.set).start()
    with database.writing() as session:
        assert [row.id for row in session.scalars(select(Dataset))] == ["slow"]
        session.add(make_dataset("after"))
    thread.join()


def test_a_schema_of_a_later_version(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match=r"tinyfit.db'.*'9999'.*later version"):
        database.upgrade()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "tinyfit.db"
    path.write_bytes(b"no database" * 1000)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(SchemaError, match=r"tinyfit.db' does not work: file is not a database"):
        database.upgrade()
    database.close()


def test_a_bad_url_is_quoted() -> None:
    with pytest.raises(InputError, match="'no url'"):
        Database("no url")
    with pytest.raises(InputError, match=r"'nosql://me:\*\*\*@there/db' needs a driver"):
        Database("nosql://me:secret@there/db")
