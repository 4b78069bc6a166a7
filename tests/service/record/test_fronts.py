"""Which trials are on a job's front."""

from collections.abc import Callable
from typing import Any

import pytest

from service.record.claims import Claim, add_trial
from service.record.db.database import Database, now
from service.record.db.models import Job, Trial
from service.record.fronts import list_front
from service.record.jobs import get_job

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

MB = 10**6


@pytest.fixture
def front(
    database: Database, make_job: Callable[..., Job], claim: Callable[[], Claim]
) -> Callable[..., list[int]]:
    """Numbers of a job's front, after trials of these megabytes and accuracies, within 24 MB."""

    def front(
        *trials: tuple[float, float], mac_limit: int | None = None, **other: Any
    ) -> list[int]:
        job = make_job()
        held = claim()
        for number, (megabytes, accuracy) in enumerate(trials):
            trial = Trial(
                job_id=job.id,
                number=number,
                candidate={"resolution": 48},
                predicted_peak_bytes=24 * MB,
                lean_peak_bytes=int(megabytes * MB),
                accuracy=accuracy,
                seconds=1.0,
                attempt=1,
                finished_at=now(),
                **{name: values[number] for name, values in other.items()},
            )
            add_trial(database, held, trial)
        found = get_job(database, job.id)
        found.settings = {**found.settings, "mac_limit": mac_limit}
        return [trial.number for trial in list_front(database, found)]

    return front


def test_each_is_more_accurate_than_all_of_no_more_memory(
    front: Callable[..., list[int]],
) -> None:
    assert front() == []
    assert front((9, 0.5)) == [0]
    assert front((9, 0.5), (3, 0.2), (5, 0.6), (7, 0.55), (20, 0.7)) == [1, 2, 4]
    assert front((9, 0.0)) == [0]


def test_of_equal_ones_that_of_less_memory_then_the_earlier(
    front: Callable[..., list[int]],
) -> None:
    assert front((9, 0.5), (3, 0.5), (3, 0.5)) == [1]
    assert front((3, 0.4), (3, 0.5), (3, 0.6)) == [2]


def test_of_equally_accurate_ones_a_lower_loss_is_worth_memory(
    front: Callable[..., list[int]],
) -> None:
    trials = ((3, 0.5), (5, 0.5), (7, 0.5), (9, 0.5), (11, 0.4))
    assert front(*trials, loss=(1.2, 1.3, 1.1, 1.1, 0.1)) == [0, 2]
    assert front(*trials, loss=(None, None, 1.1, None, 0.1)) == [0, 2]
    assert front((3, 0.5), (3, 0.5), (3, 0.5), loss=(None, 1.2, 1.1)) == [2]


def test_only_complete_ones_within_the_limits(front: Callable[..., list[int]]) -> None:
    trials = ((3, 0.2), (5, 0.6), (9, 0.8), (24, 0.9), (25, 1.0))
    assert front(*trials) == [0, 1, 2, 3]
    is_complete = (True, True, False, True, True)
    assert front(*trials, is_complete=is_complete) == [0, 1, 3]
    macs = (3 * MB, 6 * MB, 7 * MB, 10 * MB, 20 * MB)
    assert front(*trials, macs=macs, mac_limit=7 * MB) == [0, 1, 2]
