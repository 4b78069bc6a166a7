"""The benchmark of faults: a small run, and that its judge finds what is wrong."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.faults.cluster import find_postgresql
from benchmarks.faults.disk import fill_up, small_disk
from benchmarks.faults.judge import Judgement, judge
from benchmarks.faults.kinds import Faults
from benchmarks.faults.mixed_load import inflict
from service.contract.requests import JobRequest
from service.record.claims import add_epoch, claim_job, fail_job
from service.record.db.database import Database, now
from service.record.db.models import Attempt, Dataset
from service.record.jobs import create_job
from service.settings import Settings
from tests.service.support.delivery import deliver

needs_postgresql = pytest.mark.skipif(not find_postgresql(), reason="no PostgreSQL to run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "is_remote"),
    [
        ("sqlite", False),
        pytest.param("postgresql", False, marks=needs_postgresql),
        pytest.param("postgresql", True, marks=needs_postgresql),
    ],
)
def test_a_few_faults_do_no_harm(database: str, is_remote: bool) -> None:
    run = inflict(database, num_faults=3, num_jobs=2, seed=1, is_remote=is_remote)
    assert run.judgement is not None
    assert run.judgement.problems == []
    assert run.holds
    assert json.loads(json.dumps(asdict(run)))["faults"] == run.faults
    assert run.num_faults == 3
    assert run.judgement.jobs_in_record == run.judgement.jobs_succeeded
    num_deleted = run.owners.get("deleted", 0)
    assert run.owners["posted"] - num_deleted == run.judgement.jobs_in_record


Finish = Callable[..., str]


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """Makes a job and ends it, with a bundle of this content."""
    database = Database(record(tmp_path).resolved_database_url)
    database.upgrade()
    with database.writing() as session:
        session.add(
            Dataset(
                id="d1",
                name="d",
                classes=["a", "b"],
                counts={},
                num_images=0,
                num_bytes=0,
                created_at=now(),
            )
        )

    def finish(content: bytes = b"bundle", *, succeeds: bool = True, epochs: int = 1) -> str:
        job = create_job(database, JobRequest(dataset="d1", memory_limit=24_000_000))[0]
        claim = claim_job(database, worker="w", lease_seconds=60, max_lost_attempts=3)
        assert claim is not None
        for _ in range(epochs):
            add_epoch(database, claim, training="tinytl", epoch=0)
        if not succeeds:
            fail_job(database, claim, "no")
            return job.id
        deliver(
            record(tmp_path),
            database,
            claim,
            content,
            {"test_accuracy": 1.0},
        )
        return job.id

    return finish


def record(directory: Path) -> Settings:
    return Settings(data_dir=directory)


def judged(directory: Path, kinds: dict[str, int]) -> Judgement:
    return judge(record(directory), kinds, lambda: None)


def test_jobs_as_they_should_be_pass(finish: Finish, tmp_path: Path) -> None:
    found = judged(tmp_path, {finish(): 0, finish(): 0, finish(b"other"): 1})
    assert found.problems == []
    assert (found.jobs_succeeded, found.attempts) == (3, 3)
    assert found.results_per_job == {1: 3}
    assert found.different_bundles_per_kind == {0: 1, 1: 1}


def test_every_kind_of_harm_is_found(finish: Finish, tmp_path: Path) -> None:
    def problems(kinds: dict[str, int]) -> str:
        found = judged(tmp_path, kinds)
        assert not found.holds
        return "\n".join(found.problems)

    kinds = {finish(): 0}
    assert "not those that were posted" in problems({})
    other = finish(b"other")
    assert "equal jobs have different bundles" in problems({**kinds, other: 0})
    kinds[other] = 1
    litter = tmp_path / "jobs" / other / "1" / "late"
    litter.parent.mkdir(parents=True)
    litter.write_text("late")
    assert "stray: jobs/" in problems(kinds)
    shutil.rmtree(tmp_path / "jobs" / other)
    (stored,) = (path for path in (tmp_path / "artifacts").iterdir() if path.stat().st_size == 5)
    stored.rename(tmp_path / "stored")
    assert "its bundle is missing or damaged" in problems(kinds)
    (tmp_path / "stored").rename(stored)
    assert judged(tmp_path, kinds).holds
    assert "has not succeeded exactly once" in problems(
        {**kinds, finish(succeeds=False, epochs=2): 2}
    )
    assert "an epoch was told more than once" in problems(kinds)


def test_an_attempt_that_nobody_closed_is_found(finish: Finish, tmp_path: Path) -> None:
    kinds = {finish(): 0}
    database = Database(record(tmp_path).resolved_database_url)
    with database.writing() as session:
        session.add(Attempt(job_id=next(iter(kinds)), number=2, worker="w", started_at=now()))
    database.close()
    found = judged(tmp_path, kinds)
    assert (found.orphan_rows, found.holds) == (1, False)


def test_what_lasts_is_ended_once() -> None:
    done: list[str] = []

    def begin() -> Callable[[], None] | None:
        if done:
            return None
        done.append("begun")
        return lambda: done.append("ended")

    faults = Faults(random.Random(0))
    faults.add_lasting("outage", begin, seconds=60.0)
    assert faults.strike() == "outage"
    assert faults.strike() is None  # it is going on
    faults.end_due()
    assert done == ["begun"]
    for _ in range(2):
        faults.end_due(all_of_them=True)
    assert done == ["begun", "ended"]


def test_a_fault_of_a_new_kind_strikes_like_the_others() -> None:
    hits: list[str] = []
    faults = Faults(random.Random(0))
    faults.add("hit", lambda: hits.append("hit") is None)
    faults.add("missed", lambda: False)
    struck = [faults.strike() for _ in range(20)]
    assert set(struck) == {"hit", None}
    assert struck.count("hit") == len(hits)


def test_a_full_disk_has_no_room_for_a_byte(tmp_path: Path) -> None:
    with small_disk(tmp_path, num_bytes=10_000_000) as disk:
        if disk is None:
            pytest.skip("nobody may mount a disk here")
        end = fill_up(disk)
        assert end is not None
        assert fill_up(disk) is None
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"1")
        end()
        (disk / "more").write_bytes(b"1")
