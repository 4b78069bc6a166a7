import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.errors import InputError, SchemaError
from service.record.db.database import Database, ensure_schema, is_outage, now
from service.record.db.models import Dataset, Job

both = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
both_empty = pytest.mark.parametrize("empty_url", ["sqlite", "postgresql"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

UPGRADE = """
import sys
from service.record.db.database import Database
database = Database(sys.argv[1])
sys.stdin.readline()
database.upgrade()
database.check_schema()
"""


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


def make_job_row(dataset_id: str) -> Job:
    return Job(
        id="j1",
        name="job",
        dataset_id=dataset_id,
        memory_limit_bytes=1,
        supernet="s",
        method="head",
        settings={},
        created_at=now(),
    )


@both_empty
def test_processes_upgrade_at_once(empty_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    database = Database(empty_url)
    assert {"jobs", "alembic_version"} <= set(inspect(database.engine).get_table_names())
    database.close()


def test_connections_switch_to_wal_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def switch(path: Path) -> None:
        database = Database(f"sqlite:///{path}")
        together.wait()
        with database.reading() as session:
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        database.close()

    with ThreadPoolExecutor(4) as pool:
        for file in range(50):
            list(pool.map(switch, [tmp_path / f"{file}.db"] * 4))


@both_empty
def test_threads_upgrade_at_once_and_again(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.upgrade, databases))
    databases[0].upgrade()
    for database in databases:
        database.check_schema()
        database.close()


@both_empty
def test_a_schema_is_the_newest_or_says_what_to_do(empty_url: str) -> None:
    database = Database(empty_url)
    with pytest.raises(SchemaError, match="has no tables yet; run tinyfit db upgrade"):
        database.check_schema()
    database.upgrade()
    database.check_schema()
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaError, match=r"'0001', but this .* run tinyfit db upgrade"):
        database.check_schema()
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match=r"'9999', which .* made by a later one"):
        database.check_schema()
    with pytest.raises(SchemaError, match=r"'9999'.*later version"):
        database.upgrade()
    database.close()


def test_sqlite_is_upgraded_where_it_is_used(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'tinyfit.db'}"
    ensure_schema(url)
    database = Database(url)
    database.check_schema()
    database.close()


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_postgresql_is_upgraded_by_a_person(empty_url: str) -> None:
    with pytest.raises(SchemaError, match="run tinyfit db upgrade"):
        ensure_schema(empty_url)
    database = Database(empty_url)
    assert inspect(database.engine).get_table_names() == []
    database.upgrade()
    database.close()
    ensure_schema(empty_url)


def test_sqlite_waits_logs_ahead_and_checks_foreign_keys(database: Database) -> None:
    database.upgrade()
    with database.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) == 30_000


@on_postgresql
def test_postgresql_gives_up_locks_and_lost_hosts(database: Database) -> None:
    with database.reading() as session:

        def shown(name: str) -> object:
            return session.scalar(text(f"SHOW {name}"))

        assert shown("lock_timeout") == "30s"
        assert shown("idle_in_transaction_session_timeout") == "30s"
        assert shown("transaction_isolation") == "read committed"
        assert shown("application_name") == "tinyfit"
        driver = session.connection().connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["tcp_user_timeout"] == "25000"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
@on_postgresql
def test_every_postgresql_url_means_psycopg(database: Database, scheme: str) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    other = Database(scheme + url[url.index("://") :] + "?application_name=mine")
    assert other.engine.dialect.driver == "psycopg"
    with other.reading() as session:
        assert session.scalar(text("SHOW application_name")) == "mine"
    other.close()


@both
def test_foreign_keys_hold(database: Database) -> None:
    def write_a_job_without_dataset() -> None:
        with database.writing() as session:
            session.add(make_job_row("nowhere"))

    with pytest.raises(IntegrityError) as caught:
        write_a_job_without_dataset()
    assert not is_outage(caught.value)


@both
def test_the_clock_is_the_epoch(database: Database) -> None:
    with database.reading() as session:
        assert session.scalar(select(now())) == pytest.approx(time.time(), abs=2.0)
        assert session.scalar(select(now() + 60.0)) == pytest.approx(time.time() + 60, abs=2.0)
        first = session.scalar(select(now()))
        time.sleep(0.02)
        assert session.scalar(select(now())) > first  # it goes on within a transaction


@both
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


@both
def test_readers_go_on_while_one_writes(database: Database) -> None:
    with database.writing() as writer:
        writer.add(make_dataset())
        writer.flush()
        with database.reading() as reader:
            assert reader.scalars(select(Dataset)).all() == []
    with database.reading() as reader:
        assert [row.id for row in reader.scalars(select(Dataset))] == ["d1"]


def test_writers_of_sqlite_queue_before_they_read(database: Database) -> None:
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
    threading.Timer(0.2, done.set).start()
    with database.writing() as session:
        assert [row.id for row in session.scalars(select(Dataset))] == ["slow"]
        session.add(make_dataset("after"))
    thread.join()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "tinyfit.db"
    path.write_bytes(b"no database" * 1000)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(SchemaError, match=r"tinyfit.db' does not work: file is not a database"):
        database.upgrade()
    database.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("no url", "'no url' is not a database URL"),
        ("postgresql//me:secret@there/db", "'postgresql//me:***@there/db' is not"),
        ("postgresql//me:se:secret@cret@there/db", "'postgresql//me:***@there/db' is not"),
        ("postgresql://me:secret@there:port/db", "'postgresql:***@there:port/db' is not"),
        ("postgresql://me:very@secret@there/db", "@ in the password"),
        ("nosql://me:secret@there/db", "'nosql://me:***@there/db' is neither SQLite"),
        ("mysql://me@there/db?password=secret", "'mysql://me:***@there/db' is neither"),
    ],
)
def test_a_bad_url_is_quoted_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(InputError) as caught:
        Database(url)
    assert shown in str(caught.value)
    assert "secret" not in str(caught.value)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_no_message_shows_a_password() -> None:
    for url in (
        f"postgresql://me:secret@127.0.0.1:{free_port()}/db",
        f"postgresql://me@127.0.0.1:{free_port()}/db?password=secret",
    ):
        database = Database(url)
        assert "secret" not in database.shown_url
        assert "secret" not in repr(database.engine)
        with pytest.raises(DBAPIError) as refused:
            database.check_schema()
        assert is_outage(refused.value)
        assert "secret" not in str(refused.value)
        with pytest.raises(SchemaError, match=r"does not work: .*refused") as failed:
            database.upgrade()
        assert "secret" not in str(failed.value)


def test_patience_ends(tmp_path: Path) -> None:
    database = Database(f"postgresql://127.0.0.1:{free_port()}/db", patience_seconds=0.5)
    started = time.monotonic()
    with pytest.raises(DBAPIError) as refused:
        database.check_schema()
    assert 0.5 <= time.monotonic() - started < 5
    assert is_outage(refused.value)


@on_postgresql
def test_patience_outlasts_a_short_outage(database: Database) -> None:
    """As far as the client sees: nothing listens there, then the server does."""
    server = database.engine.url
    port = free_port()
    patient = Database(
        server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False),
        patience_seconds=20,
    )
    relay = threading.Timer(0.4, forward, args=(port, (server.host, server.port or 5432)))
    relay.start()
    started = time.monotonic()
    patient.check_schema()
    assert time.monotonic() - started >= 0.3
    patient.close()
    relay.join(10)


def forward(port: int, server: tuple[str, int]) -> None:
    """Pass one connection on to the server until it closes."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(5)
        client, _ = listener.accept()
    with client, socket.create_connection(server) as connection:
        back = threading.Thread(target=copy, args=(connection, client))
        back.start()
        copy(client, connection)
        back.join(10)


def copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


@on_postgresql
def test_a_lost_connection_is_an_outage_and_the_next_one_works(database: Database) -> None:
    with database.reading() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        kill(database, pid)
        with pytest.raises(DBAPIError) as lost:
            session.execute(text("SELECT 1"))
    assert is_outage(lost.value)
    with database.reading() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
    kill(database, pid)
    with database.reading() as session:  # the pool looks before it hands a connection out
        assert session.scalar(text("SELECT 1")) == 1


def kill(database: Database, pid: int | None) -> None:
    killer = Database(database.engine.url.render_as_string(hide_password=False))
    with killer.writing() as session:
        session.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
    killer.close()


def test_a_locked_sqlite_is_an_outage(database: Database) -> None:
    hasty = Database(database.shown_url + "?timeout=0.05")
    with database.writing() as writer:
        writer.add(make_dataset())
        writer.flush()
        with pytest.raises(DBAPIError, match="locked") as locked, hasty.writing() as late:
            late.add(make_dataset())
    assert is_outage(locked.value)
    hasty.close()


@both
def test_a_defect_is_no_outage(database: Database) -> None:
    for statement in ("SELECT nothing FROM nowhere", "SELEKT", "SELECT max(id, 2, 3, 4) FROM x"):
        with database.reading() as session, pytest.raises(DBAPIError) as defect:
            session.execute(text(statement))
        assert not is_outage(defect.value)
    assert not is_outage(ValueError("x"))
