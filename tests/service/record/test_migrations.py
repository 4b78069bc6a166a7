"""Migrations of a database in use. The rows of a revision, in its own SQL, are in revisions/."""

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import delete, inspect, select, text
from sqlalchemy.exc import IntegrityError

from service.contract.requests import JobRequest
from service.contract.status import Priority, Status
from service.record.claims import claim_job
from service.record.db.database import Database, alembic_config
from service.record.db.models import Artifact, Base, Blob, Dataset
from service.record.events import list_events
from service.record.files.blobs import installation_id
from service.record.jobs import (
    create_job,
    delete_job,
    find_job,
    get_artifact,
    get_job,
    list_attempts,
    list_jobs,
    list_trials,
    resume_job,
    retry_job,
)
from service.record.keys import list_keys

pytestmark = pytest.mark.parametrize("empty_url", ["sqlite", "postgresql"], indirect=True)

ROWS = Path(__file__).with_name("revisions")
SCRIPTS = ScriptDirectory.from_config(alembic_config())
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]


def migrate(database: Database, move: Callable[[Config, str], None], revision: str) -> None:
    with database.migrating() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        move(config, revision)


def fill(database: Database, revision: str) -> None:
    with database.migrating() as connection:
        for statement in (ROWS / f"{revision}.sql").read_text().split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def check_no_drift(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def check_finished_work(database: Database) -> None:
    """What no migration may touch, up or down."""
    done, bundle = find_job(database, "succeeded")
    assert (done.result, done.finished_at, done.progress) == ({"resolution": 64}, 1006.0, 1.0)
    assert bundle is not None
    assert (bundle.path, bundle.num_bytes, bundle.sha256) == ("1/model.zip", 5_000_000_000, "ab")
    for job_id in ("succeeded", "running"):
        assert [
            (row.number, row.candidate, row.predicted_peak_bytes, row.accuracy)
            for row in list_trials(database, job_id)
        ] == [
            (0, {"resolution": 64}, 3_000_000_000, 0.5),
            (1, {"resolution": 96}, 4_000_000_000, 0.75),
        ]
    failed, _ = find_job(database, "failed")
    assert (failed.status, failed.error) == (Status.FAILED, "it's broken")
    assert get_artifact(database, "failed", "adapted") is not None
    assert get_job(database, "cancelled").status is Status.CANCELLED


def check_record(database: Database) -> None:
    """Every job is where it was, and can go where it could."""
    check_finished_work(database)
    jobs = [job for job, _ in list_jobs(database)]
    assert [job.created_at for job in jobs] == sorted((j.created_at for j in jobs), reverse=True)
    for job in jobs:
        status, _, wish = job.id.partition("-")
        assert (job.status, job.stop_request) == (Status(status), wish or None), job.id
        assert job.settings == {"epochs": 2}
        events = list_events(database, job.id)
        assert [event.number for event in events] == list(range(1, job.num_events + 1))
    for job_status in Status:
        found = {job.id for job, _ in list_jobs(database, status=job_status, dataset_id="d1")}
        assert found == {job.id for job in jobs if job.status is job_status}

    claimed = []
    while claim := claim_job(database, worker="w", lease_seconds=60, max_lost_attempts=3):
        claimed.append((claim.job_id, claim.attempt))
    assert claimed == [("running", 3), ("queued", 1)]
    for job in jobs:
        _, _, wish = job.id.partition("-")
        if wish:
            expected = {"cancel": Status.CANCELLED, "pause": Status.PAUSED}[wish]
            assert get_job(database, job.id).status is expected
    assert list_attempts(database, "running")[-1].number == 3
    assert retry_job(database, "failed").status is Status.QUEUED
    delete_job(database, "cancelled")
    for job in jobs:
        if job.id == "paused":
            assert resume_job(database, job.id).status is Status.QUEUED
    new, _ = create_job(database, JobRequest(dataset="d1", memory_limit=1000))
    assert list_jobs(database)[0][0].id == new.id


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_older_trials_are_taken_to_be(empty_url: str, revision: str) -> None:
    database = Database(empty_url)
    migrate(database, command.upgrade, revision)
    fill(database, revision)
    database.upgrade()
    for trial in list_trials(database, "succeeded"):
        assert trial.lean_peak_bytes == trial.predicted_peak_bytes > 2**31
        assert (trial.is_complete, trial.reused) == (True, False)
        assert (trial.lean_plan, trial.macs, trial.num_images) == (None, None, None)
        assert trial.loss is None
    adapted = get_artifact(database, "failed", "adapted")
    assert adapted is not None
    assert adapted.key is None
    database.close()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_what_older_jobs_and_keys_are_taken_to_be(empty_url: str, revision: str) -> None:
    database = Database(empty_url)
    migrate(database, command.upgrade, revision)
    fill(database, revision)
    database.upgrade()
    for job, _ in list_jobs(database):
        assert (job.priority, job.owner) == (Priority.NORMAL, "")
    assert [key.max_running for key in list_keys(database)] == [None] * len(list_keys(database))
    database.close()


def test_on_the_way_back_only_what_earlier_versions_understand_stays(empty_url: str) -> None:
    database = Database(empty_url)
    migrate(database, command.upgrade, "0003")
    fill(database, "0003")
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM trials WHERE job_id = 'paused'")) == 2
    migrate(database, command.downgrade, "0002")
    database.upgrade()
    assert list_trials(database, "paused") == []
    database.close()


def test_what_there_was_before_blobs_stays_where_it_is(empty_url: str) -> None:
    """And blobs are nothing to an earlier version, whose rows don't speak of them."""
    database = Database(empty_url)
    migrate(database, command.upgrade, "0003")
    fill(database, "0003")
    database.upgrade()
    with database.reading() as session:
        assert session.scalars(select(Dataset.blob_sha256)).all() == [None]
        assert set(session.scalars(select(Artifact.blob_sha256))) == {None}
        assert session.scalars(select(Blob)).all() == []
    first = installation_id(database)
    assert installation_id(database) == first
    with database.migrating() as connection:
        connection.exec_driver_sql("DELETE FROM installation")
        for table in (
            "stage_times",
            "idempotency_keys",
            "artifacts",
            "trials",
            "events",
            "attempts",
        ):
            connection.exec_driver_sql(f"DELETE FROM {table}")
        for table in ("jobs", "datasets", "api_keys", "workers"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    fill(database, REVISIONS[-1])
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(delete(Blob).where(Blob.sha256 == "ab12"))  # a dataset refers to it
    migrate(database, command.downgrade, "0003")
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT job_id, kind FROM artifacts ORDER BY kind")
        assert [tuple(row) for row in rows] == [("failed", "adapted"), ("succeeded", "bundle")]
    database.close()


@pytest.mark.parametrize("revision", REVISIONS)
def test_from_every_revision_forward(empty_url: str, revision: str) -> None:
    database = Database(empty_url)
    migrate(database, command.upgrade, revision)
    fill(database, revision)
    database.upgrade()
    database.check_schema()
    check_no_drift(database)
    check_record(database)
    database.close()


@pytest.mark.parametrize("revision", REVISIONS[1:])
def test_back_by_one_and_forward_again(empty_url: str, revision: str) -> None:
    database = Database(empty_url)
    migrate(database, command.upgrade, revision)
    fill(database, revision)
    migrate(database, command.downgrade, "-1")
    database.upgrade()
    check_no_drift(database)
    check_finished_work(database)
    going_on = set()
    while claim := claim_job(database, worker="w", lease_seconds=60, max_lost_attempts=3):
        going_on.add(claim.job_id)
    statuses = {job.id: job.status for job, _ in list_jobs(database)}
    resting = {"paused", "running-pause"} if revision != "0002" else set()  # 0001 has no pauses
    ended = {"succeeded", "failed", "cancelled", "running-cancel"}
    assert set(statuses) - going_on == ended | resting
    assert statuses["running-cancel"] is Status.CANCELLED
    assert {statuses[job_id] for job_id in resting} <= {Status.PAUSED}
    database.close()


def test_back_to_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    database.upgrade()
    fill(database, REVISIONS[-1])
    migrate(database, command.downgrade, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.upgrade()
    check_no_drift(database)
    database.close()


def test_a_migration_that_fails_changes_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(empty_url)
    migrate(database, command.upgrade, REVISIONS[0])
    fill(database, REVISIONS[0])
    before = inspect(database.engine).get_columns("jobs")

    def upgrade_and_break(config: Config, revision: str) -> None:
        command.upgrade(config, revision)
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        migrate(database, upgrade_and_break, "head")
    columns = inspect(database.engine).get_columns("jobs")
    assert [column["name"] for column in columns] == [column["name"] for column in before]
    database.upgrade()
    check_record(database)
    database.close()
