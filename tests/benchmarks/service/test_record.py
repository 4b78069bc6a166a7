"""How lists and claims are looked up among many jobs, and a small run of their benchmark."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import OperationalError

from benchmarks.service.record import FILTERS, look_ups
from benchmarks.service.record_rows import explain, fill, new_database
from service.contract.status import Status
from service.record.claims import claim_job
from service.record.db.database import Database, now
from service.record.db.models import ApiKey, Job
from service.record.jobs import find_job, list_jobs

SERVER = os.environ.get(
    "TINYFIT_TEST_POSTGRESQL_URL", "postgresql+psycopg://postgres@127.0.0.1/postgres"
)
INDEXES = {
    "all": "ix_jobs_created_at_id",
    "status": "ix_jobs_status_created_at_id",
    "dataset": "ix_jobs_dataset_id_created_at_id",
    "status and dataset": "ix_jobs_dataset_id_status_created_at_id",
}
QUEUE = "ix_jobs_status_priority_created_at_id"
OWNERS_QUEUE = "ix_jobs_status_owner_priority_created_at_id"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """With 6,000 jobs, the last 1,000 of them queued; for all tests here."""
    if request.param == "sqlite":
        yield from filled(f"sqlite:///{tmp_path_factory.mktemp('record') / 'tinyfit.db'}")
        return
    server = Database(SERVER)
    try:
        with server.reading() as session:
            session.execute(text("SELECT 1"))
    except OperationalError as error:
        pytest.skip(f"no PostgreSQL to test with ({error.orig})")
    finally:
        server.close()
    with new_database(SERVER) as url:
        yield from filled(url)


def filled(url: str) -> Iterator[Database]:
    database = Database(url)
    database.upgrade()
    fill(database, num_jobs=6_000, num_queued=1_000)
    yield database
    database.close()


def is_in_order(plan: str, index: str) -> bool:
    """Whether a plan reads the jobs along this index, and nothing is sorted or scanned."""
    scans = [line for line in plan.splitlines() if "SCAN" in line and "USING INDEX" not in line]
    clumsy = ("Seq Scan", "Sort", "Bitmap Heap Scan on jobs", "Hash", "TEMP B-TREE", "BLOOM")
    return index in plan.split() and not scans and not any(word in plan for word in clumsy)


@pytest.mark.parametrize("what", FILTERS)
def test_every_list_reads_one_index_in_order(database: Database, what: str) -> None:
    actions = look_ups(database)
    for name in (f"list, {what}", f"list, {what}, deep"):
        jobs_plan, bundles_plan = explain(database, actions[name])
        assert is_in_order(jobs_plan, INDEXES[what]), jobs_plan
        assert "Seq Scan" not in bundles_plan
        assert "SCAN" not in bundles_plan
    assert ")<(" in jobs_plan or ") < ROW(" in jobs_plan  # from where the last page ended


@pytest.mark.parametrize("status", Status)
def test_rare_and_old_jobs_are_found_as_directly(database: Database, status: Status) -> None:
    plan = explain(database, lambda: list_jobs(database, status=status))[0]
    assert is_in_order(plan, INDEXES["status"]), plan


def test_a_claim_looks_at_no_other_jobs(database: Database) -> None:
    def claim() -> None:
        found = claim_job(database, worker="w", lease_seconds=600, max_lost_attempts=3)
        assert found is not None
        assert find_job(database, found.job_id)[0].created_at < 6_100.0

    expired, full, queued = explain(database, claim)[:3]
    assert is_in_order(expired, INDEXES["status"]), expired
    assert OWNERS_QUEUE in full, full
    assert is_in_order(queued, QUEUE), queued


def test_a_claim_looks_at_no_job_of_an_owner_who_has_to_wait(database: Database) -> None:
    """One whose jobs are the first 900 of the queue, with another's behind them."""

    def claim() -> None:
        found = claim_job(database, worker="w", lease_seconds=600, max_lost_attempts=3)
        assert found is not None
        assert find_job(database, found.job_id)[0].created_at >= 6_900.0

    is_first = Job.created_at.between(6_000.0, 6_899.0)
    with database.writing() as session:
        session.add(ApiKey(id="waits", name="", sha256="", max_running=1, created_at=now()))
        session.execute(update(Job).where(is_first).values(owner="waits"))
        session.execute(update(Job).where(Job.created_at == 6_000.0).values(status="running"))
    try:
        plans = explain(database, claim)[2:4]
    finally:
        with database.writing() as session:
            session.execute(update(Job).where(is_first).values(owner=""))
            session.execute(delete(ApiKey))
    assert all(OWNERS_QUEUE in plan for plan in plans), plans
    assert is_in_order(plans[1], OWNERS_QUEUE), plans[1]


def test_metrics_pass_over_what_ended_long_ago(database: Database) -> None:
    plans = explain(database, look_ups(database)["metrics"])
    for index in ("attempts_ended_at", "stage_times_ended_at"):  # there are no trials here
        assert sum(f"ix_{index}" in plan for plan in plans) == 1, plans
    assert "Seq Scan on jobs" not in plans[1]


def test_one_job_is_found_by_its_key(database: Database) -> None:
    (plan,) = explain(database, look_ups(database)["one job"])
    assert "Seq Scan" not in plan
    assert "SCAN" not in plan


def test_the_benchmark_runs(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.service.record", "--json"),
            *("--jobs", "40", "200", "--queued", "60", "--repeats", "3"),
        ],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert {row["num_jobs"] for row in found["rows"]} == {40, 200}
    assert len(found["rows"]) == 2 * (2 * len(FILTERS) + 3)
    for row in found["rows"]:
        assert 0 < row["p50"] <= row["p99"]
        assert row["plans"]
    assert found["machine"]["cores"] >= 1
    assert list(tmp_path.iterdir()) == []
