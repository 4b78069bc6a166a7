"""Adapted supernets and scores that other jobs can take over."""

from collections.abc import Callable
from typing import Any

import pytest

from service.record.claims import Claim, publish_adapted, succeed_job
from service.record.db.database import Database
from service.record.db.models import Artifact, Job, Trial
from service.record.jobs import delete_job
from service.record.reuse import list_adapted, list_scores

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

KEY = "aa"
Adapt = Callable[..., Artifact]


@pytest.fixture
def adapt(database: Database, make_job: Callable[..., Job], claim: Callable[[], Claim]) -> Adapt:
    """A job that has an adapted supernet, made at a time, and trials scored with it."""

    def adapt(at: float, *trials: Trial, key: str = KEY, sha256: str = "ab") -> Artifact:
        job = make_job()
        held = claim()
        artifact = Artifact(
            job_id=job.id,
            kind="adapted",
            path="1/adapted.safetensors",
            key=key,
            num_bytes=10,
            sha256=sha256,
            detail={},
            attempt=1,
            created_at=at,
        )
        for number, trial in enumerate(trials):
            trial.job_id, trial.number = job.id, number
        publish_adapted(database, held, artifact, trials)
        succeed_job(database, held, {})
        return artifact

    return adapt


def trial(resolution: int, at: float, **other: Any) -> Trial:
    values = {
        "candidate": {"resolution": resolution, "plan": {"batch_size": other.pop("plan", 8)}},
        "predicted_peak_bytes": 10,
        "lean_peak_bytes": 5,
        "accuracy": 0.5,
        "num_images": 9,
        "correct": bytes([resolution, 128]),
        "seconds": 1.0,
        "attempt": 1,
        "finished_at": at,
    }
    return Trial(**values | other)


def resolutions(database: Database, adapted: Artifact, limit: int = 100) -> list[int]:
    return [row.candidate["resolution"] for row in list_scores(database, adapted, limit=limit)]


def test_supernets_of_one_key_the_newest_first(database: Database, adapt: Adapt) -> None:
    assert list_adapted(database, KEY) == []
    jobs = [adapt(at).job_id for at in (3.0, 1.0, 2.0)]
    adapt(4.0, key="bb")
    found = [artifact.job_id for artifact in list_adapted(database, KEY)]
    assert found == [jobs[0], jobs[2], jobs[1]]
    delete_job(database, jobs[0])
    assert [artifact.job_id for artifact in list_adapted(database, KEY)] == [jobs[2], jobs[1]]


def test_complete_scores_of_every_job_with_it_once_each(database: Database, adapt: Adapt) -> None:
    adapted = adapt(1.0, trial(48, 1.0), trial(64, 3.0), trial(80, 2.0, is_complete=False))
    adapt(2.0, trial(48, 1.0, reused=True, plan=4), trial(96, 2.0), trial(112, 4.0, correct=None))
    adapt(3.0, trial(128, 5.0), sha256="cd")
    adapt(3.0, trial(144, 5.0), key="bb")
    assert resolutions(database, adapted) == [48, 96, 64]
    assert resolutions(database, adapted, limit=2) == [96, 64]
    scores = list_scores(database, adapted, limit=100)
    assert [row.correct for row in scores] == [
        bytes([48, 128]),
        bytes([96, 128]),
        bytes([64, 128]),
    ]


def test_copies_outlive_what_they_were_copied_from(database: Database, adapt: Adapt) -> None:
    first = adapt(1.0, trial(48, 1.0))
    second = adapt(2.0, trial(48, 1.0, reused=True))
    delete_job(database, first.job_id)
    assert resolutions(database, second) == [48]
